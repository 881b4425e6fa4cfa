-- Sends the requests of a file, each once before any comes again, and prints figures as JSON.
-- The file holds each as its length in bytes, a line, and its bytes.

local requests, turn = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], 'rb'))
  for length in function() return file:read('*n', 1) end do
    requests[#requests + 1] = file:read(length)
  end
  file:close()
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests_per_second": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
    (summary.requests - errors.status) / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end

-- Polls jobs as clients that keep to Retry-After: each connection waits a second, half of it left to chance, asks for
-- one job, and the thread's connections ask for its jobs in turn. `wrk ... -- FILE THREADS`: a path a line.

local threads = {}

function setup(thread)
  thread:set("at", #threads)
  table.insert(threads, thread)
end

function init(args)
  counts, jobs, turn = {}, {}, 0
  local number = 0
  for path in io.lines(args[1]) do
    if number % tonumber(args[2]) == at then table.insert(jobs, path) end
    number = number + 1
  end
  math.randomseed(at + 1)
end

function delay()
  return math.random(500, 1500)
end

function request()
  turn = turn % #jobs + 1
  return wrk.format("GET", jobs[turn])
end

function response(status)
  counts[tostring(status)] = (counts[tostring(status)] or 0) + 1
end

function done(summary, latency)
  local all = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("counts")) do all[status] = (all[status] or 0) + count end
  end
  local parts = {}
  for status, count in pairs(all) do table.insert(parts, string.format("%q: %d", status, count)) end
  local errors = summary.errors
  io.write(string.format(
    'JSON {"answers": {%s}, "connect": %d, "read": %d, "write": %d, "late": %d, "p50_ms": %.2f, "p99_ms": %.2f, "max_ms": %.2f}\n',
    table.concat(parts, ", "), errors.connect, errors.read, errors.write, errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end

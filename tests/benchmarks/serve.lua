-- For wrk: one text a request to `curricle serve`, another one each time, from a file with a text a line (docs/serve.md).
--   wrk -t1 -c16 -d15s --latency -s tests/benchmarks/serve.lua http://127.0.0.1:8000 -- texts.txt
local texts, at = {}, 0
init = function(arguments)
  for line in io.lines(arguments[1]) do texts[#texts + 1] = (line:gsub('[%c\\"]', " ")) end
  math.randomseed(os.time())
  at = math.random(#texts)
end
request = function()
  at = at % #texts + 1
  return wrk.format("POST", "/v1/search", { ["Content-Type"] = "application/json" }, '{"texts":["' .. texts[at] .. '"]}')
end
done = function(summary, latency)
  io.write(string.format("%.1f requests/s  p50 %.1f  p90 %.1f  p99 %.1f  max %.1f ms  errors %d\n", 1e6 * summary.requests / summary.duration,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3, summary.errors.status + summary.errors.timeout))
end

-- A 1.3 kB chat request. KEY is the API key, MODEL the model's name, STREAM is "1" for a stream with usage.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. (os.getenv("KEY") or "none")
local tail = '"temperature":0.7,"max_tokens":256}'
if os.getenv("STREAM") == "1" then
  tail = '"temperature":0.7,"max_tokens":256,"stream":true,"stream_options":{"include_usage":true}}'
end
wrk.body = '{"model":"' .. (os.getenv("MODEL") or "m")
  .. '","messages":[{"role":"system","content":"You answer in one short and friendly paragraph, whatever you are asked."},'
  .. '{"role":"user","content":"' .. string.rep("Which rivers flow through the oldest towns of the country? ", 19)
  .. '"}],' .. tail

"""The one Lua script of client-key limits.

Every number in Redis belongs to one worker and is sent whole, never as a step: a call that
is repeated, or comes late or twice, changes nothing. A worker's calls for a key are
numbered, and one that was overtaken is ignored. Totals are kept beside.

    day    hash of one key and day: total, worker -> four used, four reserved;
           row (of the record), born (when it was made, in Redis' time)
    live   hash of one key: total, worker -> running requests, number of the last call
    rpm    hash of one key: second -> requests

A worker unknown to ``day`` brings all its use if it began after the hash was made: the
record, of which the hash was made, cannot hold it. Else it was there before (Redis had
lost its data, or was away), and the higher of both views is right.
"""

from __future__ import annotations

from pool.shared.store import Script

LIMITS = Script("""
local day, live, rpm, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function numbers(text)
  local found = {}
  for word in string.gmatch(text or '', '%S+') do found[#found + 1] = tonumber(word) end
  return found
end
local function text(list) return table.concat(list, ' ') end
local worker, number, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local clock = tonumber(time[1]) + tonumber(time[2]) / 1000000
local now = tonumber(ARGV[4]) or clock
local row, begun = tonumber(ARGV[5]), tonumber(ARGV[6])
local recorded, seen, own = numbers(ARGV[7]), numbers(ARGV[8]), numbers(ARGV[9])
local running, missed = tonumber(ARGV[10]), numbers(ARGV[11])
local cost, limits, alive = numbers(ARGV[12]), numbers(ARGV[13]), clock - tonumber(ARGV[14])

local before = numbers(redis.call('HGET', live, worker) or '')
if before[2] and before[2] >= number then return {0} end
local runs = tonumber(redis.call('HGET', live, 'total') or '0') + running - (before[1] or 0)

local facts = redis.call('HMGET', day, 'total', worker, 'row', 'born')
local total, mine = numbers(facts[1] or ''), numbers(facts[2] or '')
local known_row, born = tonumber(facts[3] or '0'), tonumber(facts[4] or '0')
if #total == 0 then
  born = now
  total = {0, 0, 0, 0, 0, 0, 0, 0}
  known_row = row
  for i = 1, 4 do total[i] = math.max(recorded[i], seen[i]) end
  mine = {own[1], own[2], own[3], own[4], 0, 0, 0, 0}
end
if row > known_row then
  if known_row > 0 then for i = 1, 4 do total[i] = 0 end end
  known_row = row
end
if #mine == 0 then
  mine = {0, 0, 0, 0, 0, 0, 0, 0}
  if begun < born then
    for i = 1, 4 do
      mine[i] = own[i]
      total[i] = math.max(total[i], recorded[i], seen[i])
    end
  end
end
for i = 1, 8 do total[i] = total[i] + own[i] - mine[i] end
for i = 1, #missed do redis.call('HINCRBY', rpm, math.floor(now - missed[i]), 1) end

local function is_dead(name)
  if name == worker then return false end
  local beat = redis.call('ZSCORE', workers, name)
  return not beat or tonumber(beat) <= alive
end
local function others(key)
  local all, found = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    local name = all[i]
    if name ~= 'total' and name ~= 'row' and name ~= 'born' and name ~= worker then
      found[name] = numbers(all[i + 1])
    end
  end
  return found
end
local function leave_out_the_dead()
  for name, held in pairs(others(live)) do
    if is_dead(name) then
      runs = runs - held[1]
      redis.call('HDEL', live, name)
    end
  end
  for name, held in pairs(others(day)) do
    if held[5] + held[6] + held[7] + held[8] > 0 and is_dead(name) then
      for i = 5, 8 do
        total[i] = total[i] - held[i]
        held[i] = 0
      end
      redis.call('HSET', day, name, text(held))
    end
  end
end
local function window()
  local all, count, seconds = redis.call('HGETALL', rpm), 0, {}
  for i = 1, #all, 2 do
    local second, requests = tonumber(all[i]), tonumber(all[i + 1])
    if second <= math.floor(now) - 61 or second > math.floor(now) + 61 then
      redis.call('HDEL', rpm, all[i])
    else
      count = count + requests
      seconds[#seconds + 1] = {second, requests}
    end
  end
  return count, seconds
end
local function wait_for_room(limit, count, seconds)
  if limit == 0 then return '60' end
  table.sort(seconds, function(a, b) return a[1] < b[1] end)
  for _, one in ipairs(seconds) do
    count = count - one[2]
    if count < limit then return tostring(math.max(one[1] + 61 - now, 0.001)) end
  end
  return '60'
end
local function refusal()
  if limits[6] >= 0 and runs >= limits[6] then return {-6} end
  if limits[5] >= 0 then
    local count, seconds = window()
    if count >= limits[5] then return {-5, wait_for_room(limits[5], count, seconds)} end
  end
  for i = 1, 4 do
    if limits[i] >= 0 and cost[i] > 0 and total[i] + total[i + 4] + cost[i] > limits[i] then
      return {-i}
    end
  end
  return nil
end

local answer = nil
if #cost > 0 then
  answer = refusal()
  if answer and answer[1] ~= -5 then
    leave_out_the_dead()
    answer = refusal()
  end
  if not answer then
    for i = 1, 4 do
      own[i + 4] = own[i + 4] + cost[i]
      total[i + 4] = total[i + 4] + cost[i]
    end
    running, runs = running + 1, runs + 1
    if limits[5] >= 0 then redis.call('HINCRBY', rpm, math.floor(now), 1) end
  end
end
redis.call('HSET', day, 'total', text(total), worker, text(own), 'row', known_row, 'born', born)
redis.call('EXPIRE', day, ttl)
redis.call('HSET', live, 'total', runs, worker, running .. ' ' .. number)
redis.call('EXPIRE', live, ttl)
redis.call('EXPIRE', rpm, 120)
return {answer and answer[1] or 1, answer and answer[2] or '', text(total), text(own)}
""")

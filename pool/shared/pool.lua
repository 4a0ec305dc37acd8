-- One batch of a worker's operations on the credentials that all workers share, in order.
--
-- KEYS[1]  prefix of every key
-- ARGV     worker, its session, change number it has seen, most changes to tell,
--          operations (JSON array)
-- Returns  change number seen now, 1 if there are more, a number per operation, documents
--
-- A credential's document (JSON, key c:ID) has the fields
--   i id, v change number, n revision of the operator's changes
--   a 1 if active, w why not, r resting until, k failures in a row
--   b buckets: q remaining (absent: unknown), c cooling until, h held by open leases
--   s model -> skipped until, m worker -> open leases
-- The hash w:WORKER keeps each open lease as [credential, bucket, held].

-- Nothing is written before the end, so that a call that fails has changed nothing.

local prefix, me = KEYS[1], ARGV[1]
local seen, most = tonumber(ARGV[3]), tonumber(ARGV[4])
local KEEP = 172800
local docs, dirty, told, holds = {}, {}, {}, {}

-- Also refuses a call of this worker's that was given up long ago and arrives only now.
if redis.call('HGET', prefix .. 'sessions', me) ~= ARGV[2] then
  return redis.error_reply('STRANGER nothing is known of this worker since its last beat')
end

local newest = tonumber(redis.call('GET', prefix .. 'seq') or 0)
if not newest then return redis.error_reply('WRONGTYPE the change number is none') end
local changed = redis.call('ZRANGEBYSCORE', prefix .. 'log', '(' .. seen, '+inf',
  'WITHSCORES', 'LIMIT', 0, most)
local has_more = #changed == 2 * most

local function is_whole(doc)
  return type(doc) == 'table' and type(doc.m) == 'table' and type(doc.b) == 'table'
    and type(doc.s) == 'table' and tonumber(doc.i) and tonumber(doc.n) and tonumber(doc.a)
    and tonumber(doc.r) and tonumber(doc.k)
end

-- False if there is none; what cannot be read counts as none, and is written over.
local function load(id)
  if docs[id] == nil then
    local fine, doc = pcall(cjson.decode, redis.pcall('GET', prefix .. 'c:' .. id))
    docs[id] = fine and is_whole(doc) and doc or false
  end
  return docs[id]
end

-- The document, made from what the worker knows if there is none or only an outranked one;
-- the second value is whether it was there before.
local function load_or_seed(op)
  local doc = load(op.i)
  if doc and doc.n >= op.n then return doc, true end
  local fresh = op.seed
  if not fresh then return nil, false end
  fresh.i, fresh.n, fresh.m = op.i, op.n, doc and doc.m or {}
  for name, box in pairs(doc and doc.b or {}) do
    if box.h and box.h > 0 then
      local kept = fresh.b[name] or {}
      kept.h, fresh.b[name] = box.h, kept
      if kept.q then kept.q = math.max(0, kept.q - box.h) end
    end
  end
  docs[op.i] = fresh
  dirty[op.i] = true
  return fresh, false
end

local function leases_of(doc)
  local sum = 0
  for _, count in pairs(doc.m) do sum = sum + count end
  return sum
end

local function count_lease(doc, worker, change)
  local count = (doc.m[worker] or 0) + change
  doc.m[worker] = count > 0 and count or nil
end

local function take(box, amount)
  local taken = 0
  if box.q then
    taken = math.max(0, math.min(amount, box.q))
    box.q = box.q - taken
    box.h = (box.h or 0) + taken
  end
  return taken
end

local function is_spent(box)
  return box.q and box.q + (box.h or 0) <= 0
end

-- A bucket whose last unit was consumed rests; one that cools already keeps its time.
local function rest_if_spent(box, till)
  if is_spent(box) and (box.c or 0) == 0 then box.c = till end
end

-- What has cooled long enough is unknown, and so is what is spent without any cool-down.
local function awake(box, now)
  local till = box.c or 0
  if till <= now and (till > 0 or is_spent(box)) then return {h = box.h} end
  return box
end

-- What is to be kept of a worker's lease; false for nothing.
local function keep(worker, lease, text)
  holds[worker] = holds[worker] or {}
  holds[worker][tostring(lease)] = text
end

local function remember(lease, id, bucket, taken)
  keep(me, lease, cjson.encode({id, bucket, taken}))
end

-- Credential, bucket and amount of an open lease; nothing for one that is not known.
local function recall(worker, lease)
  local text = (holds[worker] or {})[tostring(lease)]
  if text == nil then text = redis.call('HGET', prefix .. 'w:' .. worker, lease) end
  local fine, held = pcall(cjson.decode, text)
  if fine and type(held) == 'table' then return unpack(held) end
end

local function end_reservation(doc, bucket, taken, consumed)
  local box = doc and doc.b[bucket]
  if not box then return end
  box.h = math.max(0, (box.h or 0) - taken)
  if box.q and not consumed then box.q = box.q + taken end
end

local function give_back(worker, lease)
  local id, bucket, taken = recall(worker, lease)
  keep(worker, lease, false)
  local doc = id and load(id)
  if not doc then return end
  count_lease(doc, worker, -1)
  end_reservation(doc, bucket, taken, false)
  dirty[id] = true
end

local function is_usable(doc, box, op)
  if doc.a ~= 1 or doc.r > op.t or leases_of(doc) >= op.cap then return false end
  if (doc.s[op.md] or 0) > op.t or (box.c or 0) > op.t then return false end
  return not (box.q and box.q <= 0)
end

local OPERATIONS, ended_sessions = {}, {}

function OPERATIONS.pull() return 0 end

-- Takes a credential: what was taken off its bucket, -1 if it may not be had, -2 if unknown.
function OPERATIONS.claim(op)
  local doc = load_or_seed(op)
  if not doc then return -2 end
  told[op.i] = true
  local box = awake(doc.b[op.b] or op.box, op.t)
  doc.b[op.b] = box
  if not is_usable(doc, box, op) then return -1 end
  local taken = take(box, op.cost)
  count_lease(doc, me, 1)
  remember(op.l, op.i, op.b, taken)
  dirty[op.i] = true
  return taken
end

-- What the lease had taken is used up, or given back; the lease itself stays open.
function OPERATIONS.settle(op)
  local id, bucket, taken = recall(me, op.l)
  if not id then return 0 end
  local doc, consumed = load(id), op.u == 1
  if taken > 0 then
    remember(op.l, id, bucket, 0)
    end_reservation(doc, bucket, taken, consumed)
  end
  if not doc or (taken == 0 and not consumed) then return 0 end
  if consumed and doc.b[bucket] then rest_if_spent(doc.b[bucket], op.c) end
  dirty[id] = true
  return 0
end

function OPERATIONS.finish(op)
  give_back(me, op.l)
  return 0
end

-- A lease that was made while Redis was away, or that Redis has forgotten.
function OPERATIONS.adopt(op)
  if recall(me, op.l) then return 0 end
  local doc = load_or_seed(op)
  if not doc then return -2 end
  count_lease(doc, me, 1)
  local box = awake(doc.b[op.b] or op.box, op.t)
  doc.b[op.b] = box
  remember(op.l, op.i, op.b, take(box, op.cost))
  dirty[op.i] = true
  return 0
end

-- What leases that Redis does not know have consumed; a seed contains that already.
function OPERATIONS.charge(op)
  local doc, was_there = load_or_seed(op)
  if not was_there then return 0 end
  for bucket, units in pairs(op.used) do
    local box = doc.b[bucket]
    if not box then
      doc.b[bucket] = op.seed.b[bucket]
    elseif box.q then
      box.q = math.max(0, box.q - units)
      rest_if_spent(box, op.c)
    end
  end
  dirty[op.i] = true
  return 0
end

-- Ends every lease of this worker that it does not name.
function OPERATIONS.holds(op)
  local open = {}
  for _, lease in ipairs(op.open) do open[tostring(lease)] = true end
  for _, lease in ipairs(redis.call('HKEYS', prefix .. 'w:' .. me)) do
    if not open[lease] then give_back(me, lease) end
  end
  return 0
end

-- Gives back what a worker held that has not been heard of for so many seconds.
function OPERATIONS.reap(op)
  local last = redis.call('ZSCORE', prefix .. 'workers', op.worker)
  if last and tonumber(last) > tonumber(redis.call('TIME')[1]) - op.after then return 0 end
  for _, lease in ipairs(redis.call('HKEYS', prefix .. 'w:' .. op.worker)) do
    give_back(op.worker, lease)
  end
  ended_sessions[#ended_sessions + 1] = op.worker
  return 0
end

local function later(one, other) return math.max(one or 0, other or 0) end

local function merge_bucket(box, change, exact)
  if change.q then box.q = exact and math.max(0, change.q - (box.h or 0)) or change.q end
  if change.c then box.c = exact and change.c or later(box.c, change.c) end
end

-- What an outcome did, which a seed contains already; with x the numbers are exact, else the
-- longer cool-down stays. Void if the operator has changed the credential since this worker
-- read of it.
function OPERATIONS.patch(op)
  local doc, was_there = load_or_seed(op)
  told[op.i] = true
  if not was_there or doc.n > op.n then return 0 end
  local change, exact = op.p, op.x == 1
  if change.r then doc.r = exact and change.r or later(doc.r, change.r) end
  if change.k then doc.k = change.k end
  if change.f then doc.k = doc.k + change.f end
  if change.a then doc.a, doc.w = change.a, change.w end
  for model, till in pairs(change.s or {}) do doc.s[model] = later(doc.s[model], till) end
  for bucket, box in pairs(change.b or {}) do
    doc.b[bucket] = doc.b[bucket] or {}
    merge_bucket(doc.b[bucket], box, exact)
  end
  dirty[op.i] = true
  return 0
end

-- The operator's change: the seed replaces everything but the open leases.
function OPERATIONS.reset(op)
  if load(op.i) then
    load_or_seed(op)
    told[op.i] = true
  end
  return 0
end

local results = {}
for index, op in ipairs(cjson.decode(ARGV[5])) do
  results[index] = OPERATIONS[op.o](op)
end

for worker, leases in pairs(holds) do
  local key = prefix .. 'w:' .. worker
  for lease, text in pairs(leases) do
    if text then redis.call('HSET', key, lease, text) else redis.call('HDEL', key, lease) end
  end
end
for _, worker in ipairs(ended_sessions) do redis.call('HDEL', prefix .. 'sessions', worker) end

local texts = {}
for id in pairs(dirty) do
  local doc = docs[id]
  newest = newest + 1
  doc.v = newest
  texts[#texts + 1] = cjson.encode(doc)
  redis.call('SET', prefix .. 'c:' .. id, texts[#texts], 'EX', KEEP)
  redis.call('ZADD', prefix .. 'log', newest, id)
end
if next(dirty) then redis.call('SET', prefix .. 'seq', string.format('%.0f', newest)) end

for id in pairs(told) do
  if not dirty[id] then texts[#texts + 1] = cjson.encode(docs[id]) end
end
for index = 1, #changed, 2 do
  local id = tonumber(changed[index])
  if not (told[id] or dirty[id]) then
    local raw = redis.pcall('GET', prefix .. 'c:' .. id)
    if type(raw) == 'string' then texts[#texts + 1] = raw end
  end
  seen = tonumber(changed[index + 1])
end
if not has_more then seen = newest end
return {seen, has_more and 1 or 0, results, unpack(texts)}

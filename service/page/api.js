// Calls of the public API, and nothing else; every error is a problem with a sentence.
import { T } from './text.js'
import { asked } from './dom.js'

const KEY = 'kshot-key'
const PATIENCE_MS = 60_000
let asking = null
let reached = true

export class Problem extends Error {
  constructor(fields) {
    super(fields.detail)
    Object.assign(this, fields)
  }

  get gone() {
    return ['task-not-found', 'task-expired'].includes(this.code)
  }
}

function transfer(method, path, { headers, body, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open(method, path)
    request.responseType = 'blob'
    for (const name in headers) request.setRequestHeader(name, headers[name])
    if (onProgress) request.upload.onprogress = event => event.lengthComputable && onProgress(event.loaded / event.total)
    request.onload = () => resolve(request)
    request.onerror = () => reject(away())
    request.onabort = () => reject(new DOMException('', 'AbortError'))
    signal?.addEventListener('abort', () => request.abort())
    request.send(body)
  })
}

function away() {
  noteReached(false)
  return new Problem({ code: 'unreachable', detail: T.unreachable, status: 0, retryable: true })
}

function noteReached(now) {
  if (reached === now) return
  reached = now
  dispatchEvent(new CustomEvent(now ? 'kshot-back' : 'kshot-away'))
  if (!now) waitUntilBack()
}

async function waitUntilBack() {
  for (let pause = 500; !reached; pause = Math.min(pause * 1.5, 5000)) {
    await new Promise(resolve => setTimeout(resolve, pause))
    try {
      if ((await fetch('livez', { cache: 'no-store' })).status < 500) noteReached(true)
    } catch { /* not yet */ }
  }
}

export function authorised(headers = {}) {
  const key = sessionStorage.getItem(KEY)
  return key ? { ...headers, Authorization: `Bearer ${key}` } : headers
}

export async function askForKey(problem) {
  asking ??= asked(T.keyTitle, T.keyLabel, '', { type: 'password', action: T.keyUse, hint: problem?.detail ?? '' })
  const key = await asking
  asking = null
  if (!key) return false
  sessionStorage.setItem(KEY, key.trim())
  return true
}

export function problemOf(status, text) {
  let fields = {}
  try { fields = JSON.parse(text) } catch { /* not one of ours: a proxy between */ }
  if (!fields || typeof fields !== 'object') fields = {}
  return new Problem({ code: 'unknown', detail: T.strange(status), ...fields, status })
}

async function send(method, path, options = {}) {
  const headers = authorised({ 'X-Request-Timeout-Ms': String(PATIENCE_MS), ...options.headers })
  let body = options.body
  if (options.json !== undefined) {
    headers['Content-Type'] = 'application/json'
    body = JSON.stringify(options.json)
  }
  const answer = await transfer(method, path, { ...options, headers, body })
  noteReached(true)
  if (answer.status < 400) return answer
  const problem = problemOf(answer.status, await answer.response.text())
  if (problem.status === 401 && await askForKey(problem)) return send(method, path, options)
  throw problem
}

export async function json(method, path, options) {
  const answer = await send(method, path, options)
  return answer.status === 204 ? null : JSON.parse(await answer.response.text())
}

export const get = (path, options) => json('GET', path, options)
export const blob = async (path, options) => (await send('GET', path, options)).response
export const to = (...parts) => ['v1/tasks', ...parts.map(encodeURIComponent)].join('/')

// Clips as a form; a span once a clip, empty where it has none.
export function formOf(clips, fields = {}) {
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.append(name, value)
  for (const clip of clips) {
    if (clip.label !== undefined) form.append('label', clip.label)
    form.append('clip', clip.file, clip.name)
    form.append('start_s', clip.start_s ?? '')
    form.append('end_s', clip.end_s ?? '')
  }
  return form
}

export const classify = (task, clips, fields, options) => json('POST', to(task, 'classify'), { body: formOf(clips, fields), ...options })

let told = null
export function limits() {
  told ??= get('v1/limits').catch(error => { told = null; throw error })
  return told
}

// The sampled pictures of a clip or a query; they never change, so each is asked for once.
const strips = new Map()
export function strip(path) {
  if (!strips.has(path)) {
    const made = blob(path).then(found => URL.createObjectURL(found))
    made.catch(() => strips.delete(path))
    strips.set(path, made)
    if (strips.size > 400) {
      const [oldest, url] = strips.entries().next().value
      strips.delete(oldest)
      url.then(URL.revokeObjectURL, () => {})
    }
  }
  return strips.get(path)
}

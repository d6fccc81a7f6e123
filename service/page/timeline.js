// A long video: when it shows which label, span by span as each becomes final.
import { T } from './text.js'
import { button, doing, h, own, percent, progress, save, seconds, told } from './dom.js'
import { askForKey, authorised, problemOf, to } from './api.js'
import { shut } from './media.js'

const FORMS = { csv: 'text/csv', vtt: 'text/vtt' }

export function timeline(view, signal) {
  const result = h('div', { class: 'stack' })
  let end = () => {}
  const input = h('input', { type: 'file', accept: 'video/*', id: 'long-video', class: 'unseen',
    onchange: () => {
      const [file] = input.files
      input.value = '' // the same file can be chosen again
      if (!file) return
      end()
      end = follow(view, file, result)
    } })
  signal.addEventListener('abort', () => end())
  return h('section', { class: 'card stack' }, h('h2', {}, T.longTitle), h('p', { class: 'muted' }, T.longText),
    h('div', { class: 'row' }, input, h('label', { for: 'long-video', class: 'button primary' }, T.longChoose)), result)
}

// Show a video and its spans as they come; give what ends it.
function follow(view, file, box) {
  const leave = new AbortController()
  const video = h('video', { controls: true, muted: true, playsinline: true, class: 'preview', 'aria-label': file.name })
  video.src = URL.createObjectURL(file)
  const meter = progress(T.sending)
  const cancel = button(T.stop, () => leave.abort())
  const track = h('div', { class: 'track' })
  const list = h('ol', { class: 'list' })
  box.replaceChildren(h('div', { class: 'stage' }, video), track, h('div', { class: 'row nowrap' }, meter, cancel), list)
  const jump = span => { video.currentTime = span.start_s; video.play().catch(() => {}) }
  spansOf(view, file, leave.signal, { track, list, meter, jump })
  return () => { leave.abort(); shut(video) }
}

async function spansOf(view, file, signal, { track, list, meter, jump }) {
  const found = { spans: [], length: 0 }
  try {
    await events(view, file, signal, (name, data) => {
      if (name === 'problem') throw problemOf(data.status, JSON.stringify(data))
      found.length = data.duration_s ?? found.length
      if (name === 'span') found.spans.push(data)
      if (name === 'span') list.append(row(data, jump))
      if (name === 'progress') meter.tell(T.longReached(seconds(data.reached_s)), found.length ? data.reached_s / found.length : null)
      if (name === 'ended') list.after(...data.warnings.map(text => h('p', { class: 'warning' }, text)))
      draw(track, found, jump)
    })
    if (!found.spans.length) list.replaceWith(h('p', { class: 'muted' }, T.longNone))
    meter.parentElement.replaceWith(h('div', { class: 'row' }, Object.keys(FORMS).map(form =>
      doing(T.longSave[form], () => download(view, file, form, signal)))))
  } catch (error) {
    meter.parentElement.replaceWith(error.name === 'AbortError' ? h('p', { class: 'muted' }, T.longStopped)
      : h('div', { class: 'box bad', role: 'alert' }, told(error)))
  }
}

function row(span, jump) {
  return h('li', {}, button([h('span', { class: 'mono' }, `${seconds(span.start_s)} – ${seconds(span.end_s)}`), ' ', own(span.label),
    ` ${percent(span.score)}`], () => jump(span)))
}

function draw(track, { spans, length }, jump) {
  if (!length) return
  track.replaceChildren(...spans.map(span => h('button', { type: 'button', onclick: () => jump(span),
    vars: { '--from': span.start_s / length, '--to': Math.min(1, span.end_s / length) },
    'aria-label': T.longJump(span.label, seconds(span.start_s)) })))
}

async function post(view, file, accept, signal) {
  const form = new FormData()
  form.append('clip', file, file.name)
  const answer = await fetch(to(view.id, 'timeline'), { method: 'POST', body: form, signal, headers: authorised({ Accept: accept }) })
  if (answer.ok) return answer
  const problem = problemOf(answer.status, await answer.text())
  if (answer.status === 401 && await askForKey(problem)) return post(view, file, accept, signal)
  throw problem
}

// Server-sent events over fetch: EventSource sends neither a file nor a key.
async function events(view, file, signal, tell) {
  const answer = await post(view, file, 'text/event-stream', signal)
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const parts = (text + value).split('\n\n')
    text = parts.pop()
    for (const part of parts) {
      const [name, data] = part.split('\n')
      tell(name.replace('event: ', ''), JSON.parse(data.replace('data: ', '')))
    }
  }
}

async function download(view, file, form, signal) {
  const answer = await post(view, file, FORMS[form], signal)
  save(await answer.blob(), `${file.name}.${form}`)
}

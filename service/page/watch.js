// Watch: a long video, and the camera as it goes, with an answer that is steady.
import { T } from './text.js'
import { button, failed, h, own, percent, spinner } from './dom.js'
import { camera, recording } from './media.js'
import { classify } from './api.js'
import { ranking } from './ask.js'
import { timeline } from './timeline.js'

const WINDOW_MS = 2000
const STAYS = 2 // a new answer must come so many times in a row before it is shown

export async function watchTab(view, { signal }) {
  return h('div', { class: 'stack' }, timeline(view, signal), live(view, signal))
}

function live(view, signal) {
  const box = h('section', { class: 'card stack' }, h('h2', {}, T.liveTitle), h('p', { class: 'muted' }, T.liveText))
  const stage = h('div', { class: 'live' })
  const start = button(T.liveStart, () => run().catch(failed), { class: 'primary' })
  let stop = () => {}
  signal.addEventListener('abort', () => stop())
  async function run() {
    const stream = await camera()
    const video = h('video', { muted: true, playsinline: true, class: 'preview mirrored', 'aria-label': T.cameraPicture })
    video.srcObject = stream
    video.play().catch(() => {})
    const answer = h('div', { class: 'verdict', 'aria-live': 'polite' }, spinner(T.liveFirst))
    const rows = h('div', {})
    const latency = h('p', { class: 'small muted' })
    let on = true
    stop = () => {
      on = false
      for (const track of stream.getTracks()) track.stop()
      stage.replaceChildren()
      start.hidden = false
    }
    start.hidden = true
    stage.replaceChildren(h('div', { class: 'stage' }, video), h('div', { class: 'stack' }, answer, rows, latency, button(T.stop, () => stop())))
    await watching(() => on, stream, view, signal, steady(answer, rows, latency)).finally(() => on && stop())
  }
  box.append(start, stage)
  return box
}

// Ask about one window while the next one is recorded.
async function watching(on, stream, view, signal, tell) {
  let asked = Promise.resolve()
  while (on()) {
    const taken = recording(stream, 'window')
    await taken.started
    await new Promise(resolve => setTimeout(resolve, WINDOW_MS))
    taken.stop()
    const file = await taken.file
    await asked
    if (!on()) return
    const start = performance.now()
    asked = classify(view.id, [{ file, name: 'window' }], { remember: false }, { signal })
      .then(answer => on() && tell(answer.results[0], performance.now() - start))
    asked.catch(() => {})
  }
  await asked
}

// Hysteresis: an answer stays until another one came twice.
function steady(answer, rows, latency) {
  let shown, next, times = 0
  return (result, took) => {
    if (result.error) throw Object.assign(new Error(), result.error)
    const name = result.unknown ? T.unknown : result.label
    times = name === next ? times + 1 : 1
    next = name
    if (name !== shown && (shown === undefined || times >= STAYS)) {
      shown = name
      answer.className = result.unknown ? 'verdict unknown' : 'verdict'
      answer.replaceChildren(h('h2', {}, own(name)))
    }
    rows.replaceChildren(ranking(result.ranking, result.unknown))
    latency.textContent = T.latency(Math.round(took), percent(result.score))
  }
}

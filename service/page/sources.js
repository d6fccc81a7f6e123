// Where clips come from: files, the camera, a span of a longer video.
import { T } from './text.js'
import { button, dialog, failed, h, seconds } from './dom.js'
import { limits } from './api.js'
import { camera, canRecord, opened, pictures, recordedSpan, recording, shut } from './media.js'

const COUNTDOWN_S = 3
const still = matchMedia('(prefers-reduced-motion: reduce)')
const pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// A place to drop files, with buttons for all sources. `take` gets clips: file, name, span.
export function sources(take, { many = true, title = T.dropClips, name = 'clip' } = {}) {
  const input = h('input', { type: 'file', accept: 'video/*,.mkv,.avi', multiple: many, class: 'away', tabindex: '-1',
    'aria-label': T.chooseFiles, onchange: () => { give(input.files); input.value = '' } })
  const long = h('input', { type: 'file', accept: 'video/*,.mkv', class: 'away', tabindex: '-1',
    'aria-label': T.chooseLong, onchange: () => { if (long.files[0]) cutter(long.files[0], take); long.value = '' } })
  const give = files => {
    const given = [...files].map(file => ({ file, name: file.name }))
    if (given.length) take(many ? given : given.slice(0, 1))
  }
  const box = h('div', {
    class: 'drop', role: 'group', 'aria-label': title,
    ondragover: event => { event.preventDefault(); box.classList.add('over') },
    ondragleave: () => box.classList.remove('over'),
    ondrop: event => {
      event.preventDefault()
      box.classList.remove('over')
      give(event.dataTransfer.files)
    },
  }, h('p', {}, title), h('div', { class: 'row centre' },
    button(T.chooseFiles, () => input.click()),
    button(T.record, () => recorder(take, name).catch(failed)),
    button(T.cutLong, () => long.click())), input, long)
  return box
}

// Record 2 to 10 seconds of the camera, after a countdown.
export async function recorder(take, name) {
  if (!canRecord()) throw new Error(window.isSecureContext ? T.noCamera : T.cameraNeedsHttps)
  const stream = await camera()
  const live = h('video', { muted: true, playsinline: true, class: 'preview mirrored', 'aria-label': T.cameraPicture })
  live.srcObject = stream
  live.play().catch(() => {})
  const count = h('div', { class: 'count', 'aria-live': 'assertive' })
  const length = h('input', { type: 'range', min: 2, max: 10, step: 1, value: 3, id: 'length',
    oninput: () => { told.textContent = T.recordSeconds(length.value) } })
  const told = h('output', { for: 'length' }, T.recordSeconds(3))
  const actions = h('div', { class: 'row end' })
  const box = dialog(T.recordTitle, h('div', { class: 'stack' }, h('div', { class: 'stage' }, live, count),
    h('label', { for: 'length', class: 'row spread' }, T.recordLength, told), length, actions), { wide: true })
  let taken, open = true
  box.addEventListener('close', () => {
    open = false
    taken?.stop()
    for (const track of stream.getTracks()) track.stop()
    if (live.src) URL.revokeObjectURL(live.src)
  })
  const offer = (...buttons) => { actions.replaceChildren(...buttons); buttons.at(-1).focus() }
  const shoot = async () => {
    const lasts = Number(length.value)
    actions.replaceChildren()
    length.disabled = true
    live.removeAttribute('src')
    live.srcObject = stream
    live.classList.add('mirrored')
    live.play().catch(() => {})
    for (let left = COUNTDOWN_S; left && open; left--) { count.textContent = left; await pause(still.matches ? 700 : 800) }
    if (!open) return
    taken = recording(stream, `${name}-${new Date().toISOString().slice(11, 19).replaceAll(':', '')}`)
    await taken.started
    const end = performance.now() + 1e3 * lasts
    let lastMoment = end
    offer(button(T.stop, () => { lastMoment = 0 }))
    while (open && performance.now() < lastMoment) {
      count.textContent = T.recordingLeft(Math.ceil((end - performance.now()) / 1e3))
      await pause(100)
    }
    taken.stop()
    const file = await taken.file
    if (!open) return
    count.textContent = ''
    length.disabled = false
    live.srcObject = null
    live.classList.remove('mirrored')
    live.src = URL.createObjectURL(file)
    live.loop = true
    live.play().catch(() => {})
    offer(button(T.again, shoot), button(T.useClip, () => { take([{ file, name: file.name }]); box.close() }, { class: 'primary' }))
  }
  offer(button(T.recordNow, shoot, { class: 'primary' }))
}

// Cut a span out of a video with two handles.
export async function cutter(file, take) {
  let video
  try {
    const known = limits()
    video = await opened(file)
    await cutting(file, video, await known, take)
  } catch (error) {
    if (video) shut(video)
    failed(error)
  }
}

async function cutting(file, video, known, take) {
  const [least, most] = known.clip_duration_s
  const whole = video.duration
  let start = 0, end = Math.min(whole, 3)
  const told = h('output', { class: 'mono' })
  const strip = h('div', { class: 'film', 'aria-hidden': 'true' })
  const chosen = h('div', { class: 'chosen', 'aria-hidden': 'true' })
  const handle = (label, get, set) => {
    const input = h('input', { type: 'range', min: 0, max: whole, step: 0.05, value: get(), 'aria-label': label,
      oninput: () => { set(Number(input.value)); input.value = get(); show(); video.currentTime = get() } })
    return input
  }
  const first = handle(T.spanStart, () => start, value => { start = Math.max(0, Math.min(value, end - least)) })
  const last = handle(T.spanEnd, () => end, value => { end = Math.min(whole, Math.max(value, start + least)) })
  const show = () => {
    told.textContent = T.span(seconds(start), seconds(end), seconds(end - start))
    chosen.style.setProperty('--from', start / whole)
    chosen.style.setProperty('--to', end / whole)
    for (const [input, value] of [[first, start], [last, end]]) input.setAttribute('aria-valuetext', seconds(value))
  }
  const play = () => {
    video.currentTime = start
    video.play().catch(() => {})
    const look = () => {
      if (!box.open || video.paused) return
      if (video.currentTime >= end) video.pause()
      else requestAnimationFrame(look)
    }
    requestAnimationFrame(look)
  }
  const long = whole > most || file.size > known.clip_bytes
  const use = button(T.useSpan, async () => {
    use.disabled = true
    try {
      if (!long) take([{ file, name: file.name, start_s: round(start), end_s: round(end) }])
      else take([{ file: await recordedSpan(video, start, end, file.name.replace(/\.\w+$/, '')), name: file.name }])
      box.close()
    } catch (error) {
      use.disabled = false
      failed(error)
    }
  }, { class: 'primary' })
  video.className = 'preview'
  video.setAttribute('aria-label', file.name)
  const box = dialog(T.cutTitle, h('div', { class: 'stack' }, h('div', { class: 'stage' }, video),
    h('div', { class: 'cut' }, strip, chosen, first, last), h('div', { class: 'row spread' }, told, button(T.playSpan, play)),
    long && h('p', { class: 'small muted' }, T.tooLong(most, Math.round(known.clip_bytes / 2 ** 20))),
    h('div', { class: 'row end' }, use)), { wide: true })
  box.addEventListener('close', () => shut(video))
  show()
  pictures(file, null).then(({ canvas }) => { canvas.className = 'strip'; strip.append(canvas) }, () => {})
}

const round = value => Math.round(1e3 * value) / 1e3

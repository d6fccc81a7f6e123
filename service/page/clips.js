// A clip as a card: its pictures as a strip, its length, its faults, what can be done with it.
import { T } from './text.js'
import { asked, h, own, seconds, told } from './dom.js'
import { blob, formOf, json, limits, strip, to } from './api.js'
import { cut, pictures } from './media.js'

const SIDE = 96 // pixels of a picture in a strip, of which eight stand side by side

// The room that square pictures side by side need, so that nothing moves when they come.
function framed(name, count = 8) {
  return h('div', { class: 'film', role: 'img', 'aria-label': T.picturesOf(name), vars: { '--pictures': count } })
}

// The pictures that the service looks at.
export const keptStrip = (task, clip) => stripAt(to(task, 'clips', clip.clip_id, 'frames'), clip.name ?? clip.label, clip.frames_s.length)
export const inboxStrip = (task, query) => stripAt(to(task, 'inbox', query.query_id, 'frames'), query.name ?? query.label, query.frames_s.length)

const coming = new WeakMap() // what a film shows once it is near
const near = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue
    near.unobserve(target)
    coming.get(target)()
  }
}, { rootMargin: '100px' })

function stripAt(path, name, count) {
  const film = framed(name, count)
  const [width, height] = [SIDE * count, SIDE]
  coming.set(film, () => strip(`${path}?width=${SIDE}`).then(
    src => film.append(h('img', { class: 'strip', alt: '', decoding: 'async', src, width, height })),
    error => film.replaceChildren(h('span', { class: 'small muted' }, error.detail))))
  near.observe(film)
  return film
}

// Pictures of a file that is still here; the service may know formats that the browser does not.
export function ownStrip(clip, times) {
  const film = framed(clip.name, times?.length)
  pictures(clip.file, times, clip.start_s, clip.end_s).then(({ canvas, duration }) => {
    canvas.className = 'strip'
    film.append(canvas)
    film.dispatchEvent(new CustomEvent('length', { detail: (clip.end_s ?? duration) - (clip.start_s ?? 0) }))
  }, () => film.append(h('span', { class: 'small muted' }, T.noPreview)))
  return film
}

export function draftCard(clip, actions) {
  const length = h('span', { class: 'muted' })
  const film = ownStrip(clip)
  film.addEventListener('length', event => { length.textContent = seconds(event.detail) })
  return h('li', { class: clip.fault ? 'clip bad' : 'clip' }, film,
    h('div', { class: 'facts' }, h('span', { class: 'name' }, own(clip.name)), length, h('span', { class: 'row tight' }, actions)),
    clip.fault && h('p', { class: 'fault' }, clip.fault))
}

export function keptCard(task, clip, actions) {
  const length = clip.duration_s === null ? T.pictureCount(clip.frames_s.length) : seconds(clip.duration_s)
  return h('li', { class: 'clip' }, keptStrip(task, clip),
    h('div', { class: 'facts' }, h('span', { class: 'name' }, own(clip.name ?? T.unnamedClip)),
      h('span', { class: 'muted' }, length), h('span', { class: 'row tight' }, actions)),
    clip.warnings.map(warning => h('p', { class: 'warning' }, warning)))
}

export const removeClip = (task, clip, tag) =>
  json('DELETE', to(task, 'clips', clip), { headers: tag ? { 'If-Match': tag } : {} })

export function addClips(task, label, clips, onProgress) {
  return json('POST', to(task, 'labels', label, 'clips'), { body: formOf(clips), onProgress })
}

export function putLabel(task, label, clips, onProgress) {
  return json('PUT', to(task, 'labels', label), { body: formOf(clips), onProgress })
}

// Ask for a label: one of the task's, or a new one.
export async function askLabel(view, title, except) {
  const others = view.labels.map(each => each.label).filter(label => label !== except)
  const given = await asked(title, T.label, '', { options: others, action: T.choose, hint: T.labelHint })
  return given?.trim() || null
}

// Make an example of the pictures that the service keeps at a path.
export async function addPictures(view, label, clip, path) {
  const [least] = (await limits()).pictures
  const count = clip.frames_s.length
  const again = Math.ceil(least / count)
  const frames = (await cut(await blob(`${path}/frames`), count)).flatMap(picture => Array(again).fill(picture))
  const there = view.labels.some(each => each.label === label)
  return json(there ? 'POST' : 'PUT', there ? to(view.id, 'labels', label, 'clips') : to(view.id, 'labels', label),
    { json: { clips: [{ frames, name: clip.name }] } })
}

// Give a clip another label: its pictures become an example there, and are then removed here.
export async function relabel(view, clip, label) {
  if (view.clips.filter(each => each.label === clip.label).length < 2) throw new Error(T.lastOfLabel)
  await addPictures(view, label, clip, to(view.id, 'clips', clip.clip_id))
  return removeClip(view.id, clip.clip_id)
}

export const sayProblem = error => h('div', { class: 'bad box', role: 'alert' }, told(error))

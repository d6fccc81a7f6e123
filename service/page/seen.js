// Where in the pictures an answer was seen, on demand: it costs more than the answer itself.
import { T } from './text.js'
import { doing, h, own, percent, seconds } from './dom.js'
import { classify, get } from './api.js'
import { pictures } from './media.js'

const SIDE = 192 // pixels of a picture as it is drawn
const HOT = [255, 96, 0]
let boxes = 0

export function seenPart(view, clip) {
  const box = h('div', { class: 'seen', id: `seen-${++boxes}`, hidden: true })
  const toggle = doing(T.seen, async () => {
    if (!box.childElementCount) box.append(...await shown(view, clip))
    box.hidden = !box.hidden
    toggle.setAttribute('aria-expanded', String(!box.hidden))
  }, { 'aria-expanded': 'false', 'aria-controls': box.id })
  return h('div', { class: 'stack' }, h('div', { class: 'row' }, toggle), box)
}

async function shown(view, clip) {
  const [answer, told] = await Promise.all([classify(view.id, [clip], { explain: true, remember: false }), get('v1/info')])
  const [result] = answer.results
  if (result.error) throw Object.assign(new Error(), result.error)
  const seen = result.saliency
  if (!seen) return [h('p', { class: 'warning', role: 'status' }, result.warnings.at(-1))]
  const film = await pictures(clip.file, result.frames_s, clip.start_s, clip.end_s, { side: SIDE, part: part(told.model) }).catch(() => null)
  const said = seen.frames.map((rows, place) => words(rows, place, result.frames_s[place]))
  return [
    h('p', { role: 'status' }, T.seenOf, ' ', own(seen.label), '. ', h('span', { class: 'muted' }, T.seenBy[seen.method] ?? seen.method)),
    !film && h('p', { class: 'small muted' }, T.noPreview),
    h('ol', { class: 'heats' }, seen.frames.map((rows, place) => h('li', {},
      h('figure', {}, heated(rows, film?.canvas, place, said[place]), h('figcaption', { class: 'small muted' }, seconds(result.frames_s[place])))))),
    h('p', { class: 'legend small muted' }, h('span', {}, T.seenLeast), h('span', { class: 'ramp', 'aria-hidden': 'true' }), h('span', {}, T.seenMost)),
    h('details', {}, h('summary', {}, T.seenWords), h('ol', { class: 'plainly small' }, said.map(text => h('li', {}, text)))),
  ].filter(Boolean)
}

// The part of a picture that the network looks at, where it is not the square in its middle.
const part = model => (model.squash ? model.size / model.squash : null)

// Draw a picture, dark where nothing speaks for the label and glowing where most does.
function heated(rows, film, place, said) {
  const canvas = h('canvas', { width: SIDE, height: SIDE, role: 'img', 'aria-label': said })
  const pen = canvas.getContext('2d')
  if (film) pen.drawImage(film, place * SIDE, 0, SIDE, SIDE, 0, 0, SIDE, SIDE)
  const grid = new ImageData(rows[0].length, rows.length)
  rows.flat().map(Math.sqrt).forEach((glow, cell) =>
    grid.data.set([...HOT.map(value => value * glow), 255 * (0.4 + 0.25 * glow)], 4 * cell))
  const small = h('canvas', { width: grid.width, height: grid.height })
  small.getContext('2d').putImageData(grid, 0, 0)
  pen.imageSmoothingQuality = 'high'
  pen.drawImage(small, 0, 0, SIDE, SIDE)
  return canvas
}

// The same for who cannot see it: how much of a picture counts, and where most of that is.
function words(rows, place, at) {
  const most = Math.max(...rows.flat())
  if (most < 0.05) return T.seenNot(place + 1, seconds(at))
  const row = rows.findIndex(each => each.includes(most))
  const third = (index, count) => Math.min(2, Math.floor(3 * (index + 0.5) / count))
  return T.seenAt(place + 1, seconds(at), T.seenPlaces[third(row, rows.length)][third(rows[row].indexOf(most), rows[row].length)], percent(most))
}

// Make: labels as cards with their clips, then one request.
import { T } from './text.js'
import { button, h, progress } from './dom.js'
import { formOf, json, limits } from './api.js'
import { draftCard, sayProblem } from './clips.js'
import { sources } from './sources.js'

// The draft outlives a look at another view, but not the tab.
const draft = { name: '', labels: [] }

export async function makeView({ signal }) {
  const known = await limits()
  if (!draft.labels.length) draft.labels.push({ label: '', clips: [] }, { label: '', clips: [] })
  const cards = h('ol', { class: 'labels' })
  const state = h('div', { class: 'stack' })
  const missing = h('p', { class: 'small muted', role: 'status' })
  const start = button(T.make, make, { class: 'primary large' })

  function check() {
    const lacks = [
      draft.labels.length < known.labels[0] && T.lacksLabels(known.labels[0]),
      draft.labels.some(each => !each.label.trim()) && T.lacksNames,
      draft.labels.some(each => each.clips.length < known.shots[0]) && T.lacksClips,
    ].filter(Boolean)
    missing.textContent = lacks.join(' ')
    start.disabled = lacks.length > 0
  }

  function card(entry) {
    const list = h('ul', { class: 'clips' })
    const hint = h('p', { class: 'small muted' })
    const draw = () => {
      list.replaceChildren(...entry.clips.map(clip => draftCard(clip, button(T.remove, () => {
        entry.clips.splice(entry.clips.indexOf(clip), 1)
        draw()
      }, { class: 'plain', 'aria-label': T.removeOf(clip.name) }))))
      hint.textContent = entry.clips.length < 5 ? T.moreClips(entry.clips.length) : ''
      check()
    }
    entry.draw = draw
    const place = draft.labels.indexOf(entry) + 1
    const input = h('input', { value: entry.label, dir: 'auto', maxlength: known.label_chars, autocomplete: 'off', class: 'title',
      placeholder: T.labelExamples[(place - 1) % T.labelExamples.length], 'aria-label': T.labelNumber(place),
      oninput: () => { entry.label = input.value; check() } })
    const element = h('li', { class: 'label card' },
      h('div', { class: 'row spread nowrap' }, input, button('×', () => {
        draft.labels.splice(draft.labels.indexOf(entry), 1)
        element.remove()
        check()
      }, { class: 'plain', 'aria-label': T.removeLabelNumber(place) })),
      list, hint, sources(clips => { entry.clips.push(...clips); draw() }, { name: 'recording' }))
    draw()
    return element
  }

  const name = h('input', { id: 'name', value: draft.name, dir: 'auto', maxlength: known.name_chars, autocomplete: 'off',
    placeholder: T.nameExample, oninput: () => { draft.name = name.value } })
  const add = button(T.addLabel, () => {
    const entry = { label: '', clips: [] }
    draft.labels.push(entry)
    const element = card(entry)
    cards.append(element)
    element.querySelector('input').focus()
    check()
  }, { class: 'dashed' })

  async function make() {
    const clips = draft.labels.flatMap(each => each.clips.map(clip => ({ ...clip, label: each.label, of: clip })))
    const meter = progress(T.sending)
    state.replaceChildren(meter)
    start.disabled = true
    for (const clip of clips) delete clip.of.fault
    try {
      const fields = draft.name.trim() ? { name: draft.name.trim() } : {}
      const task = await json('POST', 'v1/tasks', { body: formOf(clips, fields), signal,
        onProgress: share => meter.tell(share < 1 ? T.sending : T.looking, share < 1 ? share : null) })
      Object.assign(draft, { name: '', labels: [] })
      location.hash = `#/task/${task.id}/examples`
    } catch (error) {
      if (error.name === 'AbortError') return
      for (const fault of error.clips ?? []) if (clips[fault.index]) clips[fault.index].of.fault = fault.detail
      for (const each of draft.labels) each.draw()
      state.replaceChildren(sayProblem(error))
      check()
    }
  }

  cards.append(...draft.labels.map(card))
  check()
  return h('div', { class: 'stack' }, h('h1', {}, T.newTask), h('p', { class: 'lead' }, T.makeLead),
    h('div', { class: 'field' }, h('label', { for: 'name' }, T.name), name),
    cards, add, state, h('div', { class: 'row bottom' }, start, missing))
}


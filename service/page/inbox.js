// Inbox: the least certain answers, gone through by keyboard, and which ones are kept at all.
import { T } from './text.js'
import { button, doing, failed, h, notice, own, percent, toast } from './dom.js'
import { get, json, to } from './api.js'
import { addPictures, askLabel, inboxStrip, sayProblem } from './clips.js'
import { ranking } from './ask.js'

const OFFERED = 5 // labels with a key of their own
const GONE = new Set(['query-answered', 'query-not-found']) // somebody else was faster

export async function inboxTab(view, { signal, redraw }) {
  const found = await get(to(view.id, 'inbox'), { signal })
  const queries = [...found.queries]
  const list = h('ol', { class: 'answers inbox', 'aria-label': T.inboxList })
  const left = h('p', { class: 'muted', role: 'status' })
  const box = h('div', { class: 'stack' })

  const draw = () => {
    left.textContent = T.inboxLeft(queries.length)
    if (!queries.length) box.replaceChildren(notice(T.inboxEmpty, T.inboxEmptyText))
  }
  // The card goes, and the next one has the focus.
  const settle = (query, element, said, after) => {
    if (after) Object.assign(view, { labels: after.labels, clips: after.clips, revision: after.revision })
    const next = element.nextElementSibling ?? element.previousElementSibling
    const held = element.contains(document.activeElement)
    queries.splice(queries.indexOf(query), 1)
    element.remove()
    draw()
    redraw(view)
    if (held) (next ?? document.getElementById('main')).focus()
    toast(said)
  }
  list.append(...queries.map(query => card(view, query, settle)))
  list.addEventListener('keydown', event => pressed(event, list))
  box.append(left, h('p', { class: 'small muted keys' }, T.inboxKeys), list)
  draw()
  return h('div', { class: 'stack' }, h('p', { class: 'lead' }, T.inboxLead), policy(view), box,
    found.none_of_these > 0 && h('p', { class: 'small muted' }, T.inboxNone(found.none_of_these)))
}

// A query with what it may be; each choice has a key.
function card(view, query, settle) {
  const path = to(view.id, 'inbox', query.query_id)
  const say = body => json('POST', path, { json: body })
  const learn = async label => {
    if (view.labels.some(each => each.label === label)) return say({ label })
    const after = await addPictures(view, label, query, path)
    await say({ dismiss: true })
    return after
  }
  const fault = h('div', {})
  const choice = (key, text, act, props = {}) => doing([h('kbd', { 'aria-hidden': 'true' }, key.toUpperCase()), text], async () => {
    fault.replaceChildren()
    try {
      const done = await act()
      if (done) settle(query, element, ...done)
    } catch (error) {
      if (GONE.has(error.code)) settle(query, element, error.detail)
      else if (error.gone) throw error
      else fault.replaceChildren(sayProblem(error))
    }
  }, { 'data-key': key, 'aria-keyshortcuts': key, ...props })
  const other = async () => {
    const label = await askLabel(view, T.rightLabel)
    return label && [T.inboxLearned(label), await learn(label)]
  }
  const there = query.ranking.map(each => each.label).filter(label => view.labels.some(one => one.label === label))
  const element = h('li', { class: 'answer card', tabindex: '0',
    'aria-label': T.inboxItem(query.name ?? T.unnamedClip, query.unknown ? T.unknown : query.label, percent(query.score)) },
    h('figure', {}, inboxStrip(view.id, query), h('figcaption', { class: 'small muted' }, own(query.name ?? T.unnamedClip))),
    ranking(query.ranking.slice(0, OFFERED), query.unknown),
    query.warnings.map(warning => h('p', { class: 'warning' }, warning)),
    h('div', { class: 'row tight', role: 'group', 'aria-label': T.inboxWhat },
      there.slice(0, OFFERED).map((label, place) => choice(String(place + 1), own(label), async () => [T.inboxLearned(label), await learn(label)])),
      choice('o', T.inboxOther, other),
      choice('0', T.unknown, async () => [T.inboxCounted, await say({ label: null })]),
      choice('x', T.inboxDrop, async () => [T.inboxDropped, await say({ dismiss: true })], { class: 'danger' })), fault)
  return element
}

// Arrows go from query to query, a key chooses; only while the focus is in the list.
function pressed(event, list) {
  if (event.ctrlKey || event.altKey || event.metaKey) return
  const at = event.target.closest('.inbox > li')
  const key = event.key.toLowerCase()
  const steps = { arrowdown: 'nextElementSibling', j: 'nextElementSibling', arrowup: 'previousElementSibling', k: 'previousElementSibling' }
  if (!at || !list.contains(at)) return
  const chosen = key in steps ? at[steps[key]] : at.querySelector(`[data-key="${CSS.escape(key)}"]`)
  if (!chosen) return
  event.preventDefault()
  if (key in steps) chosen.focus()
  else chosen.click()
}

// Whether answers are kept unasked, and how sure one must be to be left out.
function policy(view) {
  const change = async inbox => {
    const after = await json('PATCH', to(view.id), { json: { inbox } })
    Object.assign(view, { inbox: after.inbox, revision: after.revision })
    toast(inbox ? T.inboxOn : T.inboxOff)
  }
  const below = h('input', { type: 'range', id: 'below', min: 5, max: 100, step: 5, value: Math.round(100 * (view.inbox?.below ?? 0.6)),
    'aria-describedby': 'below-told', oninput: () => tell(), onchange: () => kept.checked && save() })
  const told = h('output', { id: 'below-told', for: 'below', class: 'small muted' })
  const kept = h('input', { type: 'checkbox', id: 'kept', checked: view.inbox !== null, onchange: () => save() })
  const save = () => change(kept.checked ? { ...view.inbox, below: below.value / 100 } : null).catch(error => {
    kept.checked = view.inbox !== null
    failed(error)
    tell()
  })
  const tell = () => {
    told.textContent = T.inboxBelow(`${below.value} %`)
    below.disabled = !kept.checked
  }
  kept.addEventListener('change', tell)
  tell()
  return h('section', { class: 'card policy' }, h('div', { class: 'check' }, kept, h('label', { for: 'kept' }, T.inboxKeep)),
    h('div', { class: 'field' }, h('label', { for: 'below', class: 'unseen' }, T.inboxBelowLabel), below, told))
}

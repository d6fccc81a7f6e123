// The examples of a task: labels as cards, as the service understood them, each open to change.
import { T } from './text.js'
import { asked, button, confirmed, doing, failed, h, own, progress, toast } from './dom.js'
import { json, to } from './api.js'
import { addClips, askLabel, keptCard, putLabel, relabel, removeClip, sayProblem } from './clips.js'
import { sources } from './sources.js'

const FIRST = 24 // cards that are drawn at once; the others follow when the browser has time

export async function examplesTab(view, { again, refresh, signal }) {
  const list = h('ol', { class: 'labels' })
  const later = [...view.labels]
  const some = count => list.append(...later.splice(0, count).map(label => card(view, label, refresh)))
  some(again ? later.length : FIRST) // at once where a shorter page would move what is read
  const more = () => {
    if (signal.aborted || !later.length) return
    some(FIRST)
    setTimeout(more, 30)
  }
  setTimeout(more, 30)
  return h('div', { class: 'stack' }, nextSteps(view), view.text_reason && h('p', { class: 'box' }, view.text_reason),
    list, newLabel(view, refresh))
}

function nextSteps(view) {
  const few = view.labels.some(label => label.clips < 2)
  return h('p', { class: 'next' }, few ? T.nextFew : T.nextReady, ' ',
    h('a', { href: `#/task/${view.id}/judge` }, T.goJudge), ' ', h('a', { href: `#/task/${view.id}/ask` }, T.goAsk))
}

// Send clips with their progress, and say a refusal beside them.
export async function sending(box, send, done) {
  const meter = progress(T.sending)
  box.replaceChildren(meter)
  try {
    await send(share => meter.tell(share < 1 ? T.sending : T.looking, share < 1 ? share : null))
    box.replaceChildren()
    done()
  } catch (error) {
    box.replaceChildren(sayProblem(error))
  }
}

function card(view, label, refresh) {
  const clips = view.clips.filter(clip => clip.label === label.label)
  const state = h('div', {})
  const path = to(view.id, 'labels', label.label)
  const changed = (said) => { toast(said); refresh() }
  const rename = async () => {
    const name = await asked(T.renameLabel, T.label, label.label)
    if (!name?.trim() || name === label.label) return
    await json('PATCH', path, { json: { label: name.trim() } })
    changed(T.renamed)
  }
  const remove = async () => {
    if (!await confirmed(T.removeLabel, T.removeLabelText(label.label, clips.length), T.remove)) return
    await json('DELETE', path)
    changed(T.removed)
  }
  const of = clip => [
    doing(T.move, async () => {
      const other = await askLabel(view, T.moveTitle, label.label)
      if (!other) return
      await relabel(view, clip, other)
      changed(T.moved(other))
    }, { class: 'plain', 'aria-label': T.moveOf(clip.name ?? '') }),
    doing(T.remove, async () => { await removeClip(view.id, clip.clip_id); changed(T.removed) },
      { class: 'plain', 'aria-label': T.removeOf(clip.name ?? '') }),
  ]
  return h('li', { class: 'label card' },
    h('div', { class: 'row spread nowrap' }, h('h2', {}, own(label.label)),
      h('div', { class: 'row tight' }, doing(T.rename, rename, { class: 'plain', 'aria-label': T.renameOf(label.label) }),
        doing(T.remove, remove, { class: 'plain', 'aria-label': T.removeOf(label.label) }))),
    h('ul', { class: 'clips' }, clips.map(clip => keptCard(view.id, clip, of(clip)))),
    words(label, path, changed), state,
    sources(given => sending(state, tell => addClips(view.id, label.label, given, tell), () => changed(T.added(given.length))),
      { title: T.dropMore, name: 'recording' }))
}

function words(label, path, changed) {
  const areas = label.descriptions.map((sentence, stage) => h('textarea', { rows: 2, value: sentence, dir: 'auto',
    'aria-label': T.stages[stage] ?? T.stageNumber(stage + 1) }))
  const put = descriptions => json('PUT', `${path}/descriptions`, { json: { descriptions } })
  return h('details', { class: 'words' }, h('summary', {}, T.words, h('span', { class: 'muted small' }, ` ${T.wordsBy[label.text_source] ?? ''}`)),
    h('p', { class: 'small muted' }, T.wordsHint),
    areas.map((area, stage) => h('div', { class: 'field' }, h('span', { class: 'small muted', 'aria-hidden': 'true' }, T.stages[stage] ?? T.stageNumber(stage + 1)), area)),
    h('div', { class: 'row end' }, doing(T.wordsAgain, async () => { await put(null); changed(T.wordsChanged) }),
      doing(T.save, async () => { await put(areas.map(area => area.value.trim())); changed(T.wordsChanged) }, { class: 'primary' })))
}

function newLabel(view, refresh) {
  const box = h('div', {})
  const open = async () => {
    const name = (await asked(T.addLabel, T.label, '', { action: T.goOn }))?.trim()
    if (!name) return
    const state = h('div', {})
    box.replaceChildren(h('div', { class: 'label card' }, h('h2', {}, own(name)), h('p', { class: 'small muted' }, T.newLabelHint), state,
      sources(clips => sending(state, tell => putLabel(view.id, name, clips, tell), () => { toast(T.added(clips.length)); refresh() }), { name: 'recording' })))
  }
  return h('div', { class: 'stack' }, box, button(T.addLabel, () => open().catch(failed), { class: 'dashed' }))
}

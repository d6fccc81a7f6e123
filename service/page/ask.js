// Ask: what is this clip? The answer as a person reads it, and a way to say that it is wrong.
import { T } from './text.js'
import { bar, doing, h, own, percent, progress, toast } from './dom.js'
import { classify, json, to } from './api.js'
import { addClips, askLabel, keptStrip, ownStrip, putLabel, sayProblem } from './clips.js'
import { seenPart } from './seen.js'
import { sources } from './sources.js'

const SHOWN = 5
const MOST = 16

export async function askTab(view, { signal }) {
  const answers = h('ol', { class: 'answers', reversed: true, 'aria-live': 'polite' })
  const state = h('div', {})
  const remember = h('input', { type: 'checkbox', id: 'remember' })
  const empty = h('p', { class: 'muted centred' }, T.askEmpty)
  const ask = async clips => {
    const meter = progress(T.sending)
    state.replaceChildren(meter)
    try {
      for (let from = 0; from < clips.length; from += MOST) {
        const some = clips.slice(from, from + MOST)
        const answer = await classify(view.id, some, remember.checked ? { remember: true } : {}, { signal, onProgress: share => meter.tell(share < 1 ? T.sending : T.looking, share < 1 ? share : null) })
        empty.remove()
        for (const result of answer.results) answers.prepend(card(view, some[result.clip_index], result, answer))
      }
      state.replaceChildren()
    } catch (error) {
      if (error.gone) throw error
      state.replaceChildren(sayProblem(error))
    }
  }
  return h('div', { class: 'stack' }, h('p', { class: 'lead' }, T.askLead), sources(ask, { title: T.dropAsk, name: 'question' }),
    h('div', { class: 'check' }, remember, h('label', { for: 'remember' }, T.askRemember)), state, empty, answers)
}

function card(view, clip, result, answer) {
  if (result.error) {
    return h('li', { class: 'answer card' }, h('h2', {}, own(clip.name)), ownStrip(clip), sayProblem(result.error))
  }
  const example = view.clips.find(each => each.label === result.label)
  return h('li', { class: 'answer card' },
    h('div', { class: 'pair' },
      h('figure', {}, ownStrip(clip, result.frames_s), h('figcaption', { class: 'small muted' }, T.asked, ' ', own(clip.name))),
      example && h('figure', {}, keptStrip(view.id, example), h('figcaption', { class: 'small muted' }, T.exampleOf, ' ', own(result.label)))),
    verdict(result), result.warnings.map(warning => h('p', { class: 'warning' }, warning)),
    ranking(result.ranking, result.unknown), seenPart(view, clip), parts(result, answer), correction(view, clip, result))
}

function verdict(result) {
  if (result.unknown) {
    return h('div', { class: 'verdict unknown' }, h('h2', {}, T.unknown),
      h('p', { class: 'muted' }, T.unknownWhy(result.nearest.toFixed(2), result.threshold.toFixed(2)), ' ', own(result.label)))
  }
  return h('div', { class: 'verdict' }, h('h2', {}, own(result.label)),
    h('p', { class: 'muted' }, result.score < 0.6 ? T.unsure(percent(result.score)) : T.sure(percent(result.score))))
}

export function ranking(ranked, faint = false) {
  const row = each => h('li', {}, h('span', { class: 'name' }, own(each.label)), bar(each.score), h('span', { class: 'mono' }, percent(each.score)))
  const list = h('ol', { class: faint ? 'ranking faint' : 'ranking', 'aria-label': T.ranking }, ranked.slice(0, SHOWN).map(row))
  const rest = ranked.slice(SHOWN)
  return h('div', {}, list, rest.length > 0 && h('details', {}, h('summary', {}, T.moreLabels(rest.length)),
    h('ol', { class: 'ranking', start: SHOWN + 1 }, rest.map(row))))
}

// How the score came about: both factors, and the stages in words against the whole clip.
function parts(result, answer) {
  const rows = result.ranking.slice(0, SHOWN)
  const staged = rows[0].stages
  const all = rows.flatMap(row => row.stages ?? [])
  const [low, high] = [Math.min(...all), Math.max(...all)]
  const cell = value => h('td', { class: 'heat mono', vars: { '--heat': high > low ? (value - low) / (high - low) : 0 } }, value.toFixed(2))
  return h('details', {}, h('summary', {}, T.why),
    h('p', { class: 'small muted' }, T.whyText, answer.text_reason && ` ${answer.text_reason}`),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': T.why }, h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, T.label), h('th', { scope: 'col' }, T.video),
      rows[0].text !== null && h('th', { scope: 'col' }, T.text),
      staged?.map((_, stage) => h('th', { scope: 'col' }, T.stages[stage] ?? T.stageNumber(stage + 1))))),
    h('tbody', {}, rows.map(row => h('tr', {}, h('th', { scope: 'row' }, own(row.label)), h('td', { class: 'mono' }, row.video.toFixed(2)),
      row.text !== null && h('td', { class: 'mono' }, row.text.toFixed(2)), row.stages?.map(cell)))))),
    h('p', { class: 'small muted' }, T.timing(Math.round(answer.timing_ms.decode + answer.timing_ms.queue + answer.timing_ms.compute), answer.task_revision)))
}

// A clip in the inbox is answered there; a new label needs the clip itself.
async function taught(view, clip, query, label) {
  const say = body => json('POST', to(view.id, 'inbox', query), { json: body })
  const there = view.labels.some(each => each.label === label)
  if (there && query) return say({ label })
  const after = await (there ? addClips : putLabel)(view.id, label, [clip])
  if (query) await say({ dismiss: true })
  return after
}

function correction(view, clip, result) {
  const box = h('div', { class: 'row' }, h('span', { class: 'muted' }, T.isItRight))
  const learn = async label => {
    const after = await taught(view, clip, result.query_id, label)
    Object.assign(view, { labels: after.labels, clips: after.clips, revision: after.revision })
    box.replaceChildren(h('p', { class: 'good', role: 'status' }, T.learned, ' ', own(label)))
    toast(T.added(1))
  }
  box.append(
    doing(T.wrong, async () => {
      const label = await askLabel(view, T.rightLabel, result.unknown ? undefined : result.label)
      if (label) await learn(label)
    }),
    doing(T.learnToo, () => learn(result.label), { 'aria-label': T.learnTooOf(result.label) }))
  return box
}

// Judge: the diagnosis as a person reads it, with what mends each finding.
import { T } from './text.js'
import { bar, doing, h, notice, own, percent, toast } from './dom.js'
import { get, to } from './api.js'
import { askLabel, keptStrip, relabel, removeClip } from './clips.js'

const CLIP_REMEDY = new Set(['clip-copy', 'clip-not-claimed', 'clip-near-duplicate', 'clip-few-pictures', 'clip-still'])
const GOOD = 0.9
const FAIR = 0.7

export async function judgeTab(view, { signal, refresh }) {
  const found = await get(to(view.id, 'diagnosis'), { signal })
  if (!found.leave_one_out) {
    return notice(T.judgeNothing, T.judgeNothingText, h('a', { class: 'button primary', href: `#/task/${view.id}/examples` }, T.addExamples))
  }
  return h('div', { class: 'stack' }, summary(found.leave_one_out), enough(found.enough, view),
    findings(found.findings, view, refresh), perLabel(found.labels), confusions(found.confusions),
    h('p', { class: 'small muted' }, found.judged_by, ' ', T.judgedOn(found.task_revision)))
}

function summary(whole) {
  const grade = whole.value >= GOOD ? 'good' : whole.value >= FAIR ? 'fair' : 'poor'
  return h('section', { class: `grade card ${grade}` },
    h('p', { class: 'figure' }, percent(whole.value)),
    h('div', {}, h('h2', {}, T.grades[grade]), h('p', {}, T.gradeText(Math.round(whole.value * whole.clips), whole.clips)),
      h('p', { class: 'small muted' }, T.interval(percent(whole.low), percent(whole.high)))))
}

function enough(curve, view) {
  if (!curve) return null
  const steps = [...Object.entries(curve.measured).map(([shots, value]) => [T.withClips(Number(shots)), value]),
    [T.now, curve.now], [T.oneMore, curve.one_more]]
  const gain = curve.one_more - curve.now
  return h('section', { class: 'card' }, h('h2', {}, T.enoughTitle),
    h('p', {}, gain >= 0.02 ? T.enoughMore(Math.round(100 * gain)) : T.enoughDone,
      curve.label && gain >= 0.02 && [' ', T.needy, ' ', own(curve.label), '.']),
    h('ol', { class: 'curve' }, steps.map(([name, value], place) => h('li', { class: place === steps.length - 1 ? 'next' : '' },
      h('span', { class: 'mono' }, percent(value)), h('span', { class: 'column', 'aria-hidden': 'true', vars: { '--share': value } }), h('span', { class: 'small muted' }, name)))),
    gain >= 0.02 && h('a', { class: 'button', href: `#/task/${view.id}/examples` }, T.addExamples))
}

function findings(all, view, refresh) {
  if (!all.length) return h('section', { class: 'card' }, h('h2', {}, T.findings), h('p', { class: 'good' }, T.noFindings))
  return h('section', { class: 'stack' }, h('h2', {}, T.findingsCount(all.length)),
    h('ol', { class: 'findings' }, all.map(each => finding(each, view, refresh))))
}

function finding(each, view, refresh) {
  const clip = view.clips.find(clip => clip.clip_id === each.clip_id)
  const others = each.others.map(id => view.clips.find(clip => clip.clip_id === id)).filter(Boolean)
  const done = said => { toast(said); refresh() }
  return h('li', { class: 'finding card' }, h('h3', {}, T.codes[each.code] ?? each.code),
    h('div', { class: 'pair' }, [clip, ...others.slice(0, 1)].filter(Boolean).map(one => h('figure', {}, keptStrip(view.id, one),
      h('figcaption', { class: 'small muted' }, own(one.name ?? T.unnamedClip), ' · ', own(one.label))))),
    h('p', {}, each.sentence), h('p', { class: 'muted' }, each.remedy),
    h('div', { class: 'row' },
      clip && CLIP_REMEDY.has(each.code) && doing(T.removeClip, async () => {
        await removeClip(view.id, clip.clip_id)
        done(T.removed)
      }, { 'aria-label': T.removeClipOf(clip.name ?? '') }),
      clip && each.code === 'clip-not-claimed' && view.labels.some(label => label.label === each.others[0]) && doing(
        [T.moveTo, ' ', own(each.others[0])], async () => {
          await relabel(view, clip, each.others[0])
          done(T.moved(each.others[0]))
        }),
      clip && each.code === 'clip-not-claimed' && doing(T.moveElse, async () => {
        const label = await askLabel(view, T.moveTitle, clip.label)
        if (!label) return
        await relabel(view, clip, label)
        done(T.moved(label))
      }, { 'aria-label': T.moveElseOf(clip.name ?? '') }),
      !clip && h('a', { class: 'button', href: `#/task/${view.id}/examples` }, T.addExamples)))
}

function perLabel(labels) {
  const rows = Object.entries(labels).sort(([, one], [, other]) => (one?.value ?? 2) - (other?.value ?? 2))
  return h('section', { class: 'card' }, h('h2', {}, T.perLabel), h('ol', { class: 'ranking' }, rows.map(([label, value]) => h('li', {},
    h('span', { class: 'name' }, own(label)), value ? bar(value.value) : h('span', { class: 'small muted' }, T.oneClip),
    h('span', { class: 'mono' }, value ? T.ofClips(Math.round(value.value * value.clips), value.clips) : '–')))))
}

function confusions(all) {
  if (!all.length) return null
  return h('section', { class: 'card' }, h('h2', {}, T.confusions), h('ul', { class: 'plainly' }, all.slice(0, 12).map(each =>
    h('li', {}, own(each.label), ` ${T.takenFor} `, own(each.taken_for), ` – ${T.shareOf(percent(each.share))}`))))
}

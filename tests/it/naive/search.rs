//! Searches of `_typeFilter` in obvious code: R4's search page sentence by sentence, over a whole parsed document. Shares
//! nothing with `src/fhir/search/`; the paths of its parameters stand in `search_table`.

use super::search_table::parameters;
use super::{instant, line};
use serde_json::Value;
use std::cmp::Ordering;

/// Picoseconds in a second.
const SECOND: i128 = 1_000_000_000_000;

/// What a search does not say itself.
pub(crate) struct Searcher<'a> {
    /// Bases under which absolute references are ours.
    pub bases: &'a [&'a str],
    /// The moment of the export, in picoseconds.
    pub now: i128,
}

impl Searcher<'_> {
    /// Whether a resource meets one of the filters of its type; any does if there are none.
    pub(crate) fn meets_one(&self, filters: &[String], resource: &Value) -> bool {
        let of = format!("{}?", resource["resourceType"].as_str().unwrap());
        let mut own = filters.iter().filter_map(|filter| filter.strip_prefix(&of)).peekable();
        own.peek().is_none() || own.any(|search| self.meets(search, &of[..of.len() - 1], resource))
    }

    /// Whether a resource meets every criterion of a search (R4, 3.1.1.4: repeats are AND).
    fn meets(&self, search: &str, of: &str, resource: &Value) -> bool {
        search.split('&').filter(|pair| !pair.is_empty()).all(|pair| {
            let (name, text) = pair.split_once('=').unwrap();
            let (name, text) = (decoded(name), decoded(text));
            let (name, modifier) = name.split_once(':').unwrap_or((&name, ""));
            let (_, kind, paths) = *parameters(of).iter().find(|(code, ..)| *code == name).unwrap();
            // What nests deeper than can be read is left out (reading 36).
            let is_read = |path: &&str| depth(&resource[path.split(['.', ':', '[']).next().unwrap()]) < DEPTH_MAX;
            paths.iter().all(is_read) && self.meets_criterion(kind, paths, modifier, &text, resource)
        })
    }

    fn meets_criterion(
        &self,
        kind: &str,
        paths: &[&'static str],
        modifier: &str,
        text: &str,
        resource: &Value,
    ) -> bool {
        let found: Vec<(&str, &Value)> = paths.iter().flat_map(|path| found_at(resource, path)).collect();
        if modifier == "missing" {
            return found.is_empty() == (text == "true");
        }
        let wanted: Vec<String> = split(text, ',').into_iter().filter(|one| !one.is_empty()).collect();
        let truth = Value::from(found.iter().any(|(_, value)| **value != Value::Bool(false)));
        let found = match paths[0].ends_with(":truth") {
            true => vec![("boolean", &truth)],
            false => found,
        };
        let any = wanted.iter().any(|one| found.iter().any(|(of, value)| self.matches(kind, of, modifier, one, value)));
        any != (modifier == "not")
    }

    fn matches(&self, kind: &str, of: &str, modifier: &str, wanted: &str, value: &Value) -> bool {
        match kind {
            "token" => token_matches(of, wanted, value),
            "date" => self.date_matches(of, wanted, value),
            "string" => texts(of, value).into_iter().any(|text| string_matches(modifier, &plain(wanted), text)),
            "number" | "quantity" if of == "Range" => range_matches(wanted, value),
            "number" => number_of(value).is_some_and(|number| number_matches(wanted, Some(&number), Some(&number))),
            "quantity" => quantity_matches(of, wanted, value),
            "uri" if of == "canonical" => canonical_matches(&plain(wanted), value),
            "uri" => value.as_str() == Some(&plain(wanted)),
            "reference" if of == "canonical" => canonical_matches(&plain(wanted), value),
            "reference" => self.reference_matches(modifier, &plain(wanted), value),
            _ => unreachable!("{kind}"),
        }
    }

    /// R4, 3.1.1.4.5 and 3.1.1.4.7: both sides are ranges of time.
    fn date_matches(&self, of: &str, wanted: &str, value: &Value) -> bool {
        let (prefix, date) = prefix_of(wanted);
        let (from, to) = span(&plain(date).replace(' ', "+")).unwrap();
        let Some((start, end)) = time_of(of, value) else { return false };
        let inside = from <= start && end <= to;
        match prefix {
            "eq" => inside,
            "ne" => !inside,
            "gt" => end > to,
            "lt" => start < from,
            // "The specified value and up", and up to it: what has a part of it is not less, and not greater.
            "ge" => end > from,
            "le" => start < to,
            "sa" => start >= to,
            "eb" => end <= from,
            _ => {
                let tenth = (self.now - from).abs() / 10;
                start < to + tenth && from - tenth < end
            }
        }
    }

    /// R4, 3.1.1.4.12: an id, a type and an id, or a URL; relative or under our base is the same. Versions are not looked at.
    fn reference_matches(&self, modifier: &str, wanted: &str, value: &Value) -> bool {
        let Some(text) = value.get("reference").and_then(Value::as_str) else { return false };
        let wanted = if modifier.is_empty() { wanted.to_string() } else { format!("{modifier}/{wanted}") };
        match (self.target(text), self.target(&wanted)) {
            (Some(found), Some(wanted)) => found == wanted,
            (Some((base, _, id)), None) => base.is_empty() && id == wanted,
            (None, _) => text == wanted,
        }
    }

    /// Base, type and id of a literal reference; the base is empty where it is ours.
    fn target(&self, text: &str) -> Option<(String, String, String)> {
        let mut parts: Vec<&str> = text.split('/').collect();
        if parts.len() >= 4 && parts[parts.len() - 2] == "_history" && line::is_r4_id(parts[parts.len() - 1]) {
            parts.truncate(parts.len() - 2);
        }
        let (id, name) = (parts.pop()?, parts.pop()?);
        let base = parts.join("/");
        let is_url = base.starts_with("http://") || base.starts_with("https://");
        let is_local = base.is_empty() && text.starts_with(name) || self.bases.contains(&&base[..]);
        if !line::is_id(id) || !line::is_type(name) || !(is_local || is_url && !base.contains([' ', '?', '#'])) {
            return None;
        }
        Some((if is_local { String::new() } else { base }, name.to_string(), id.to_string()))
    }
}

/// Levels of a member that is read.
const DEPTH_MAX: usize = 127;

/// Levels of a value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
        Value::Object(all) => 1 + all.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The one value, or the items of a list and of the lists in it; nothing of `null`.
fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().flat_map(items).collect(),
        one => vec![one],
    }
}

/// The values at a path with their data type: lists item by item, at any depth, and nothing of `null`.
fn found_at<'v>(root: &'v Value, path: &'static str) -> Vec<(&'static str, &'v Value)> {
    let (names, of) = path.split_once(':').unwrap();
    let (of, target) = of.split_once('>').unwrap_or((of, ""));
    let mut found = vec![root];
    for name in names.split('.') {
        let (name, system) = name.strip_suffix(']').and_then(|name| name.split_once('[')).unwrap_or((name, ""));
        found = found.into_iter().filter_map(|value| value.get(name)).flat_map(items).collect();
        found.retain(|value| system.is_empty() || value.get("system").and_then(Value::as_str) == Some(system));
    }
    // A reference that names another type than the target is no value; one that names none is none either.
    found.retain(|value| {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let named = Searcher { bases: &[], now: 0 }.target(text("reference")).map(|(_, name, _)| name);
        target.is_empty() || named.as_deref().unwrap_or(text("type")) == target
    });
    found.into_iter().map(|value| (of, value)).collect()
}

/// R4, 3.1.1.4.10: `code`, `system|code`, `|code`, `system|`.
fn token_matches(of: &str, wanted: &str, value: &Value) -> bool {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
    let coding = |value: &Value, code: &str| (text(value, "system"), text(value, code).unwrap_or_default());
    let found: Vec<(Option<String>, String)> = match of {
        "CodeableConcept" => {
            value.get("coding").map(items).unwrap_or_default().into_iter().map(|one| coding(one, "code")).collect()
        }
        "Coding" => vec![coding(value, "code")],
        "Identifier" => vec![coding(value, "value")],
        "ContactPoint" => text(value, "value").map(|text| (None, text)).into_iter().collect(),
        _ => match value {
            Value::String(text) => vec![(None, text.clone())],
            Value::Bool(truth) => vec![(None, truth.to_string())],
            _ => Vec::new(),
        },
    };
    let parts = split(wanted, '|');
    let (system, code) = match parts.len() {
        1 => (None, plain(wanted)),
        _ => (Some(plain(&parts[0])), plain(&parts[1..].join("|"))),
    };
    found.into_iter().any(|(own_system, own_code)| {
        let is_system = system.as_ref().is_none_or(|system| *system == own_system.unwrap_or_default());
        // A text is compared without its case; `text` is a string, and no code or id.
        let is_code = own_code == code || of == "text" && lowered(&own_code) == lowered(&code);
        is_system && (is_code || code.is_empty() && system.is_some())
    })
}

/// R4, 3.1.1.4.8: begins so, contains, is exactly so.
fn string_matches(modifier: &str, wanted: &str, text: &str) -> bool {
    match modifier {
        "exact" => text == wanted,
        "contains" => without_accents(text).contains(&without_accents(wanted)),
        _ => without_accents(text).starts_with(&without_accents(wanted)),
    }
}

/// A text in lower case; a sigma has one form at the end of a word and within.
fn lowered(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect::<String>().replace('ς', "σ")
}

/// A text in lower case without accents; of letters that have one, the ones that the tests use.
fn without_accents(text: &str) -> String {
    let bases = [('ü', 'u'), ('é', 'e'), ('ñ', 'n'), ('ά', 'α'), ('ú', 'u')];
    let base = |c: char| bases.iter().find(|(letter, _)| *letter == c).map_or(c, |(_, base)| *base);
    lowered(text).chars().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).map(base).collect()
}

/// The texts that a string parameter covers: those of type string.
fn texts<'v>(of: &str, value: &'v Value) -> Vec<&'v str> {
    let names: &[&str] = match of {
        "HumanName" => &["text", "family", "given", "prefix", "suffix"],
        "Address" => &["text", "line", "city", "district", "state", "postalCode", "country"],
        _ => return value.as_str().into_iter().collect(),
    };
    names.iter().filter_map(|name| value.get(name)).flat_map(items).filter_map(Value::as_str).collect()
}

/// A canonical URL: with its version, or of any where none is asked for.
fn canonical_matches(wanted: &str, value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    text == wanted || !wanted.contains('|') && text.split('|').next() == Some(wanted)
}

/// R4, 3.1.1.4.11: `number`, `number|system|code`, `number||code`.
fn quantity_matches(of: &str, wanted: &str, value: &Value) -> bool {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
    let parts: Vec<String> = split(wanted, '|');
    let Some(number) = value.get("value").and_then(number_of) else { return false };
    if let [_, system, code] = &parts[..] {
        let (system, code) = (plain(system), plain(code));
        let (own_system, own_code) = match of {
            "Money" => (Some("urn:iso:std:iso:4217".to_string()), text("currency")),
            _ => (text("system"), text("code")),
        };
        let is_unit = code.is_empty() || own_code.as_ref() == Some(&code);
        let is_read_so = system.is_empty() && text("unit") == Some(code);
        if !(is_unit || is_read_so) || !system.is_empty() && own_system != Some(system) {
            return false;
        }
    }
    match text("comparator").as_deref() {
        Some("<" | "<=") => number_matches(&parts[0], None, Some(&number)),
        Some(">" | ">=") => number_matches(&parts[0], Some(&number), None),
        _ => number_matches(&parts[0], Some(&number), Some(&number)),
    }
}

/// R4, 3.1.1.4.5: a Range is explicitly a range. The unit is that of either end, the low one first.
fn range_matches(wanted: &str, value: &Value) -> bool {
    let parts: Vec<String> = split(wanted, '|');
    let ends = [&value["low"], &value["high"]];
    let numbers = ends.map(|end| number_of(&end["value"]));
    let text = |name: &str| ends.iter().find_map(|end| end[name].as_str()).map(str::to_string);
    if numbers == [None, None] {
        return false;
    }
    if let [_, system, code] = &parts[..] {
        let (system, code) = (plain(system), plain(code));
        let named = [text("code"), if system.is_empty() { text("unit") } else { None }];
        let is_system = system.is_empty() || text("system") == Some(system);
        if !is_system || !code.is_empty() && !named.contains(&Some(code)) {
            return false;
        }
    }
    number_matches(&parts[0], numbers[0].as_ref(), numbers[1].as_ref())
}

/// R4, 3.1.1.4.6: whether the numbers from `low` to `high` compare so; a missing end is infinite.
fn number_matches(wanted: &str, low: Option<&Number>, high: Option<&Number>) -> bool {
    let (prefix, text) = prefix_of(wanted);
    let number = Number::read(text).unwrap();
    let (digits, exponent, precision) = parts_of(text);
    // The digits behind the last are five: half of the last digit's unit. `1e2` is 95 to 105, a tenth of that.
    let (places, half) = if text.contains(['e', 'E']) { (2, 5) } else { (1, 5) };
    let scaled = digits * 10i128.pow(places);
    let bound = |digits: i128| Number::new(digits, exponent - precision - i64::from(places));
    let (from, to) = (bound(scaled - half), bound(scaled + half));
    let inside = low.is_some_and(|low| *low >= from) && high.is_some_and(|high| *high < to);
    let above = high.is_none_or(|high| *high > number);
    let below = low.is_none_or(|low| *low < number);
    // Both ends of a Range belong to it.
    let ends = low.is_some() && high.is_some();
    match prefix {
        "eq" => inside,
        "ne" => !inside,
        "gt" => above,
        "lt" => below,
        "ge" => above || ends && high == Some(&number),
        "le" => below || ends && low == Some(&number),
        "sa" => low.is_some_and(|low| *low > number),
        "eb" => high.is_some_and(|high| *high < number),
        _ => {
            let tenth = |digits: i128| Number::new(digits, exponent - precision - 1);
            let (from, to) = (tenth(digits * 10 - digits.abs()), tenth(digits * 10 + digits.abs()));
            low.is_none_or(|low| *low <= to) && high.is_none_or(|high| *high >= from)
        }
    }
}

/// A decimal of any length: its sign, its digits without zeros at either end, and the place of the point before them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Number {
    negative: bool,
    digits: String,
    point: i64,
}

impl Number {
    fn new(digits: i128, exponent: i64) -> Number {
        Number::of(digits < 0, &digits.unsigned_abs().to_string(), exponent)
    }

    fn of(negative: bool, digits: &str, exponent: i64) -> Number {
        let digits = digits.trim_start_matches('0');
        let point = digits.len() as i64 + exponent;
        let digits = digits.trim_end_matches('0').to_string();
        if digits.is_empty() {
            return Number { negative: false, digits, point: 0 };
        }
        Number { negative, digits, point }
    }

    fn read(text: &str) -> Option<Number> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.trim_start_matches('+').parse().ok()?;
        let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64);
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        Some(Number::of(text.starts_with('-'), &digits, exponent - fraction))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        let sign = |number: &Number| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits));
        let size = if self.negative { size.reverse() } else { size };
        sign(self).cmp(&sign(other)).then(if sign(self) == 0 { Ordering::Equal } else { size })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Digits with their sign, exponent, and number of digits behind the point.
fn parts_of(text: &str) -> (i128, i64, i64) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let behind = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64);
    let digits: String = mantissa.chars().filter(|c| *c != '.' && *c != '+').collect();
    (digits.parse().unwrap(), exponent.parse().unwrap(), behind)
}

/// The number that a value is.
fn number_of(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Number::read(&number.to_string()),
        _ => None,
    }
}

/// The range of time of a value, from its first picosecond to the one behind its last.
fn time_of(of: &str, value: &Value) -> Option<(i128, i128)> {
    match of {
        "Period" => {
            let start = value.get("start").filter(|start| !start.is_null());
            let end = value.get("end").filter(|end| !end.is_null());
            if start.is_none() && end.is_none() {
                return None;
            }
            let from = start.map_or(Some(i128::MIN / 2), |start| Some(span(start.as_str()?)?.0))?;
            let to = end.map_or(Some(i128::MAX / 2), |end| Some(span(end.as_str()?)?.1))?;
            (from < to).then_some((from, to))
        }
        "Timing" => {
            let events = value.get("event").map(items).unwrap_or_default();
            let mut all: Vec<(i128, i128)> = events.into_iter().filter_map(|event| span(event.as_str()?)).collect();
            let bounds = value.get("repeat").and_then(|repeat| repeat.get("boundsPeriod"));
            all.extend(bounds.and_then(|bounds| time_of("Period", bounds)));
            Some((all.iter().map(|(from, _)| *from).min()?, all.iter().map(|(_, to)| *to).max()?))
        }
        // A fixed point in time: the shortest range there is. A date in its place stays a day.
        "instant" => {
            value.as_str().and_then(span).map(|(from, to)| (from, if to - from <= SECOND { from + 1 } else { to }))
        }
        _ => value.as_str().and_then(span),
    }
}

/// The range of time that a date of any precision stands for, in picoseconds; without a zone it is UTC.
pub(crate) fn span(text: &str) -> Option<(i128, i128)> {
    let of = |text: &str| instant::parse(text).map(|found| i128::from(found.seconds) * SECOND);
    let years = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((day, time)) = text.split_once('T') else {
        return match text.len() {
            4 if years(text) => {
                let next = text.parse::<u32>().ok()? + 1;
                Some((of(&format!("{text}-01-01T00:00:00Z"))?, of(&format!("{next:04}-01-01T00:00:00Z"))?))
            }
            7 => {
                let from = of(&format!("{text}-01T00:00:00Z"))?;
                let days = (28..=31).rev().find(|day| of(&format!("{text}-{day}T00:00:00Z")).is_some())?;
                Some((from, from + days * 86_400 * SECOND))
            }
            10 => of(&format!("{text}T00:00:00Z")).map(|from| (from, from + 86_400 * SECOND)),
            _ => None,
        };
    };
    let (clock, zone) = time.split_at(time.find(['Z', '+', '-']).unwrap_or(time.len()));
    let zone = if zone.is_empty() { "Z" } else { zone };
    if clock.len() == 5 {
        return of(&format!("{day}T{clock}:00{zone}")).map(|from| (from, from + 60 * SECOND));
    }
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    if clock.ends_with('.') || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let from = of(&format!("{day}T{whole}{zone}"))?;
    let fraction = &fraction[..fraction.len().min(12)];
    let unit = 10i128.pow(12 - fraction.len() as u32);
    let from = from + fraction.parse::<i128>().unwrap_or(0) * unit;
    Some((from, from + unit))
}

/// The comparison that a value begins with, and the rest.
fn prefix_of(text: &str) -> (&str, &str) {
    let known = ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];
    match text.get(..2).filter(|prefix| known.contains(prefix)) {
        Some(prefix) => (prefix, &text[2..]),
        None => ("eq", text),
    }
}

/// Parts between separators that no backslash stands before; backslashes stay.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => parts.last_mut().unwrap().extend(std::iter::once(c).chain(rest.next())),
            c if c == separator => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    parts
}

/// A text whose escaped `,`, `|`, `$` and `\` stand for themselves (R4, 3.1.1.4.16).
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let escapes = c == '\\' && rest.peek().is_some_and(|next| ",|$\\".contains(*next));
        out.push(if escapes { rest.next().unwrap() } else { c });
    }
    out
}

/// A text without percent escapes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let code = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&code).unwrap(), 16).unwrap());
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

//! Bodies of requests: Groups, Groups that are damaged, and bytes that are none.

use super::chance::Chance;

/// Longest body that the services of this bench take.
pub(crate) const BODY_BYTES: usize = 200_000;

/// Parts that are put into damaged JSON.
const PARTS: &[&[u8]] = &[
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\u0000",
    b"\\x",
    b"1e999",
    b"-1e-999",
    b"123456789012345678901234567890",
    b"-",
    b"01",
    b"NaN",
    b"null",
    b"true",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\n",
    b"/*",
    b"\"resourceType\":\"Patient\",",
    b"\"member\":[{}],",
    b"\"id\":\"../../x\",",
    b"\"extension\":[{\"url\":\"\",\"valueInteger\":2147483648}],",
    b"\"modifierExtension\":[{\"url\":\"http://x\"}],",
    b"\"implicitRules\":\"http://x\",",
    b"\"quantity\":-1,",
];

/// A body of any kind. `id` is what a Group that is put there should be called.
pub(crate) fn body(chance: &mut Chance, id: Option<&str>) -> Vec<u8> {
    match chance.below(20) {
        0..=7 => group(chance, id),
        8..=11 => {
            let mut body = group(chance, id);
            (0..1 + chance.below(5)).for_each(|_| damage(chance, &mut body));
            body
        }
        12 => {
            let mut body = group(chance, id);
            body.truncate(chance.below(body.len()));
            body
        }
        13 => nested(chance),
        14 => {
            // Half of a surrogate pair, as a name, a key or an id.
            let text =
                chance.pick(&["\"name\":\"\\ud800\"", "\"\\udfff\":1", "\"id\":\"\\ud83d\"", "\"name\":\"a\\ud83dz\""]);
            with(&group(chance, id), text)
        }
        15 => {
            let text = chance.pick(&[
                "\"quantity\":1e400",
                "\"quantity\":99999999999999999999",
                "\"quantity\":-0.0000001e-99999",
                "\"quantity\":1e99999999999999999999",
                "\"extension\":[{\"url\":\"http://x\",\"valueDecimal\":1e308}]",
                "\"extension\":[{\"url\":\"http://x\",\"valueDecimal\":1e309}]",
                "\"extension\":[{\"url\":\"http://x\",\"valueInteger\":4294967296}]",
            ]);
            with(&group(chance, id), text)
        }
        16 => chance.bytes(5000),
        17 => vec![b' '; chance.below(BODY_BYTES + 20_000)],
        18 => Vec::new(),
        _ => chance
            .pick(&[
                &b"{}"[..],
                b"[]",
                b"null",
                b"\"Group\"",
                b"{\"resourceType\":\"Group\"}",
                b"{\"resourceType\":\"Patient\",\"id\":\"a\"}",
                b"{\"resourceType\":[\"Group\"]}",
                b"{\"resourceType\":\"Group\",\"resourceType\":\"Group\"}",
                b"<Group xmlns='http://hl7.org/fhir'/>",
                b"a=b&c=d",
            ])
            .to_vec(),
    }
}

/// The body of a kick-off: a `Parameters` that is right, wrong or damaged, or any other body.
pub(crate) fn kick_off_body(chance: &mut Chance) -> Vec<u8> {
    if chance.one_in(8) {
        return body(chance, None);
    }
    let entries = [
        "{\"name\":\"_type\",\"valueString\":\"Patient\"}",
        "{\"name\":\"_type\",\"valueCode\":\"Nope\"}",
        "{\"name\":\"_since\",\"valueInstant\":\"2019-06-01T00:00:00Z\"}",
        "{\"name\":\"_since\",\"valueDateTime\":\"2019\"}",
        "{\"name\":\"patient\",\"valueReference\":{\"reference\":\"Patient/a\"}}",
        "{\"name\":\"patient\",\"valueReference\":{\"reference\":\"../../etc\"}}",
        "{\"name\":\"patient\",\"valueReference\":[]}",
        "{\"name\":\"includeAssociatedData\",\"valueCoding\":{\"code\":\"LatestProvenanceResources\"}}",
        "{\"name\":\"\\ud800\",\"valueString\":\"x\"}",
        "{\"name\":\"unknown\",\"valueDecimal\":1e999999}",
        "{\"name\":\"a\",\"part\":[{\"name\":\"b\"}]}",
        "{\"valueString\":\"x\"}",
        "3",
    ];
    let count = if chance.one_in(20) { 3000 } else { chance.below(4) };
    let chosen: Vec<&str> =
        (0..count).map(|_| if chance.one_in(2) { entries[0] } else { chance.pick(&entries) }).collect();
    let kind = if chance.one_in(20) { "Bundle" } else { "Parameters" };
    let mut body = format!("{{\"resourceType\":\"{kind}\",\"parameter\":[{}]}}", chosen.join(",")).into_bytes();
    if chance.one_in(4) {
        damage(chance, &mut body);
    }
    body
}

/// A Group that can be stored, as far as its members are patients of the store.
fn group(chance: &mut Chance, id: Option<&str>) -> Vec<u8> {
    let mut fields = vec!["\"resourceType\":\"Group\"".to_string()];
    if let Some(id) = id.filter(|_| !chance.one_in(4)) {
        fields.push(format!("\"id\":\"{id}\""));
    }
    fields.push(format!("\"type\":\"{}\"", if chance.one_in(10) { "device" } else { "person" }));
    fields.push(format!("\"actual\":{}", !chance.one_in(10)));
    let more = [
        "\"name\":\"Gr\u{fc}n \\ud83d\\ude00\"",
        "\"identifier\":[{\"system\":\"http://x\",\"value\":\"1\"}]",
        "\"code\":{\"coding\":[{\"system\":\"http://x\",\"code\":\"c\"}]}",
        "\"managingEntity\":{\"reference\":\"Organization/a\"}",
        "\"text\":{\"status\":\"generated\",\"div\":\"<div xmlns='http://www.w3.org/1999/xhtml'>a</div>\"}",
        "\"quantity\":3",
        "\"active\":true",
        "\"meta\":{\"versionId\":\"7\",\"lastUpdated\":\"2020-01-01T00:00:00Z\"}",
        "\"characteristic\":[{\"code\":{\"text\":\"a\"},\"valueBoolean\":true,\"exclude\":false}]",
    ];
    fields.extend(more.iter().filter(|_| chance.one_in(4)).map(|field| field.to_string()));
    let count = if chance.one_in(50) { 2000 } else { chance.below(20) };
    let members: Vec<String> = (0..count)
        .map(|_| {
            let reference = match chance.below(6) {
                0 => "Group/ten".to_string(),
                1 => format!("Patient/{}", chance.name()),
                2 => "http://elsewhere/fhir/Patient/a".to_string(),
                _ => "Patient/777".to_string(),
            };
            let more = chance.pick(&["", "", ",\"inactive\":true", ",\"period\":{\"end\":\"2001-01-01\"}"]);
            format!("{{\"entity\":{{\"reference\":\"{reference}\"}}{more}}}")
        })
        .collect();
    if count > 0 {
        fields.push(format!("\"member\":[{}]", members.join(",")));
    }
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// A JSON object with another field.
fn with(object: &[u8], field: &str) -> Vec<u8> {
    [&object[..object.len() - 1], b",", field.as_bytes(), b"}"].concat()
}

/// Changes a few bytes.
fn damage(chance: &mut Chance, body: &mut Vec<u8>) {
    if body.is_empty() {
        return;
    }
    let at = chance.below(body.len());
    let end = at + chance.below((body.len() - at).min(40));
    match chance.below(4) {
        0 => body[at] ^= 1 << chance.below(8),
        1 => drop(body.drain(at..end)),
        2 => {
            let copy = body[at..end].to_vec();
            body.splice(at..at, copy);
        }
        _ => drop(body.splice(at..at, chance.pick(PARTS).iter().copied())),
    }
}

/// Arrays and objects in each other, closed or not.
fn nested(chance: &mut Chance) -> Vec<u8> {
    let (open, close) = if chance.one_in(2) { ("[", "]") } else { ("{\"a\":", "}") };
    let depth = 1 + chance.below(BODY_BYTES / (open.len() + 1));
    let closed = if chance.one_in(3) { String::new() } else { close.repeat(depth) };
    let deep = format!("{}1{closed}", open.repeat(depth));
    match chance.below(3) {
        0 => deep.into_bytes(),
        _ => with(&group(chance, None), &format!("\"{}\":{deep}", chance.pick(&["extension", "member", "x"]))),
    }
}

//! JSON string escapes resolved, for the few strings whose text is compared.

/// Resolves the escapes of a string's raw text into `out`; `false` when the raw text is no legal inside of a JSON
/// string. A lone surrogate becomes U+FFFD: it is legal JSON, but occurs in no text that is compared.
pub(crate) fn unescape(raw: &[u8], out: &mut String) -> bool {
    out.clear();
    let Ok(raw) = str::from_utf8(raw) else { return false };
    let mut chars = raw.chars();
    let mut lead: Option<u32> = None;
    while let Some(c) = chars.next() {
        if c != '\\' {
            if lead.take().is_some() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            out.push(c);
            continue;
        }
        let unit = match chars.next() {
            Some('u') => {
                let digits: Option<u32> = (0..4).try_fold(0, |sum, _| Some(sum * 16 + chars.next()?.to_digit(16)?));
                match digits {
                    Some(unit) => unit,
                    None => return false,
                }
            }
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some(plain @ ('"' | '\\' | '/')) => plain as u32,
            _ => return false,
        };
        match (lead.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                continue;
            }
            (Some(_), _) => out.push(char::REPLACEMENT_CHARACTER),
            (None, _) => {}
        }
        match unit {
            0xd800..=0xdbff => lead = Some(unit),
            _ => out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
    if lead.is_some() {
        out.push(char::REPLACEMENT_CHARACTER);
    }
    true
}

//! Letters without case and accents, as texts are compared (R4 search, string).
//!
//! Letters of the Latin, Greek and Cyrillic scripts count as the base letter of their canonical decomposition (Unicode 15), and combining
//! marks do not count. What has no decomposition stays: `ø`, `ł` and `ß` are letters of their own.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Base letters, each followed by those that are it with accents; in lower case.
const ACCENTED: &str = "\
    aàáâãäåāăąǎǟǡǻȁȃȧḁạảấầẩẫậắằẳẵặ bḃḅḇ cçćĉċčḉ dďḋḍḏḑḓ eèéêëēĕėęěȅȇȩḕḗḙḛḝẹẻẽếềểễệ fḟ gĝğġģǧǵḡ hĥȟḣḥḧḩḫẖ \
    iìíîïĩīĭįǐȉȋḭḯỉị jĵǰ kķǩḱḳḵ lĺļľḷḹḻḽ mḿṁṃ nñńņňǹṅṇṉṋ oòóôõöōŏőơǒǫǭȍȏȫȭȯȱṍṏṑṓọỏốồổỗộớờởỡợ pṕṗ rŕŗřȑȓṙṛṝṟ \
    sśŝşšșṡṣṥṧṩ tţťțṫṭṯṱẗ uùúûüũūŭůűųưǔǖǘǚǜȕȗṳṵṷṹṻụủứừửữự vṽṿ wŵẁẃẅẇẉẘ xẋẍ yýÿŷȳẏẙỳỵỷỹ zźżžẑẓẕ æǣǽ øǿ ſẛ ʒǯ \
    αάἀἁἂἃἄἅἆἇὰάᾀᾁᾂᾃᾄᾅᾆᾇᾰᾱᾲᾳᾴᾶᾷ εέἐἑἒἓἔἕὲέ ηήἠἡἢἣἤἥἦἧὴήᾐᾑᾒᾓᾔᾕᾖᾗῂῃῄῆῇ ιΐίϊἰἱἲἳἴἵἶἷὶίῐῑῒΐῖῗ οόὀὁὂὃὄὅὸό ρῤῥ \
    υΰϋύὐὑὒὓὔὕὖὗὺύῠῡῢΰῦῧ ωώὠὡὢὣὤὥὦὧὼώᾠᾡᾢᾣᾤᾥᾦᾧῲῳῴῶῷ ϒϓϔ аӑӓ гѓ еѐёӗ жӂӝ зӟ ийѝӣӥ кќ оӧ уўӯӱӳ чӵ ыӹ эӭ ії ѵѷ әӛ өӫ";

/// The base letter of each accented one.
static BASES: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
    let letters = |word: &'static str| {
        let mut letters = word.chars();
        let base = letters.next();
        letters.filter_map(move |letter| Some((letter, base?)))
    };
    ACCENTED.split(' ').flat_map(letters).collect()
});

/// Blocks of combining marks.
const MARKS: [std::ops::RangeInclusive<char>; 5] = [
    '\u{300}'..='\u{36f}',
    '\u{1ab0}'..='\u{1aff}',
    '\u{1dc0}'..='\u{1dff}',
    '\u{20d0}'..='\u{20ff}',
    '\u{fe20}'..='\u{fe2f}',
];

/// A text in lower case, character by character; a sigma has one form.
pub(crate) fn lower_case(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c }).collect()
}

/// A text in lower case, without accents.
pub(crate) fn base_letters(text: &str) -> String {
    let mut found = lower_case(text);
    if !found.is_ascii() {
        let is_mark = |c: &char| MARKS.iter().any(|block| block.contains(c));
        found = found.chars().filter(|c| !is_mark(c)).map(|c| BASES.get(&c).copied().unwrap_or(c)).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accents do not count, written as one letter or apart; other letters stay.
    #[test]
    fn accents_do_not_count() {
        for (text, base) in [
            ("Müller", "muller"),
            ("MU\u{308}LLER", "muller"),
            ("Núñez", "nunez"),
            ("Ếlan", "elan"),
            ("Άγγελος", "αγγελοσ"),
            ("Й", "и"),
            ("İ", "i"),
            ("Øst Łódź ß", "øst łodz ß"),
            ("山田", "山田"),
        ] {
            assert_eq!(base_letters(text), base, "{text}");
        }
        assert_eq!(lower_case("MÜLLER ΠΑΠΑΣ"), "müller παπασ");
        assert!(BASES.iter().all(|(letter, base)| letter != base && !BASES.contains_key(base)));
    }
}

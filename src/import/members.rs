//! The members of a JSON object as ranges of its text. The object was validated before.

use std::ops::Range;

use crate::extract::root_members::{pass_to, pass_value};
use crate::simd::block_cursor::{BlockCursor, StringCarry};
use crate::simd::{Kernel, KernelJob, Vector};

/// A member of an object: where its name stands, quotes included, and its value.
pub(crate) type ObjectMember = (Range<usize>, Range<usize>);

/// The members of the object that is `text`; `None` of any other value.
pub(crate) fn object_members(kernel: Kernel, text: &[u8]) -> Option<Vec<ObjectMember>> {
    kernel.run(MembersJob { text })
}

/// An object on its way through [`object_members`].
struct MembersJob<'a> {
    text: &'a [u8],
}

impl KernelJob for MembersJob<'_> {
    type Output = Option<Vec<ObjectMember>>;
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) -> Option<Vec<ObjectMember>> {
        let text = self.text;
        let mut cursor = BlockCursor::new(vector, text, StringCarry::default());
        let mut members = Vec::new();
        if !pass_to(&mut cursor, b'{') {
            return None;
        }
        loop {
            match cursor.byte()? {
                b'}' => return Some(members),
                b'"' => {}
                _ => {
                    cursor.at += 1;
                    continue;
                }
            }
            let from = cursor.at;
            cursor.at += 1;
            if !cursor.find_quote() {
                return None;
            }
            cursor.at += 1;
            let name = from..cursor.at;
            if !pass_to(&mut cursor, b':') {
                return None;
            }
            while matches!(cursor.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
                cursor.at += 1;
            }
            let from = cursor.at;
            if !pass_value(&mut cursor, text) {
                return None;
            }
            members.push((name, from..cursor.at));
        }
    }
}

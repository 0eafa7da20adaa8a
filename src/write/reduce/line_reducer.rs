//! Reduces rows of one type, in pieces of any size, to the properties that it keeps, and tags them (ELEM-02, ELEM-03).
//!
//! A row is not parsed: nested values are passed over by their brackets, and what stays is copied as it stands. Only the
//! insides of `meta` and `meta.tag` are walked.
//!
//! - A `meta` that is an array is taken for one that holds an object, whose first object gets the tag; any other that is no
//!   object is replaced by one with the tag alone. A `tag` that is an object is made an array of it; any other that is no
//!   array is replaced.
//! - Of equal names each is treated by itself: all are kept, or none.
//! - A row is one that an index took, so brackets and strings close. If that was without a check of its grammar
//!   ([`Structure`](crate::extract::Validate::Structure)), what stands between the members is dropped.

use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::subsetted::{SUBSETTED_CODE, SUBSETTED_CODING, SUBSETTED_META, SUBSETTED_SYSTEM};
use crate::simd::block_cursor::{BlockCursor, StringCarry};
use crate::simd::{Kernel, KernelJob, Vector};
use crate::write::reduce::kept_names::{KEY_BYTES_MAX, KeptNames, PropertyRole, is_text};

/// Reduces rows of one type.
pub struct LineReducer {
    kernel: Kernel,
    names: KeptNames,
    place: PlaceInRow,
    /// Raw text of a name or of a compared string that began in an earlier piece, at most a byte more than is compared.
    held: Vec<u8>,
}

/// The value that is walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum RowLevel {
    /// The resource.
    #[default]
    Resource,
    /// A `meta` that is an array.
    MetaList,
    /// `meta`, or the first object of one that is an array.
    Meta,
    /// `meta.tag`, an array.
    Tags,
    /// A Coding of `meta.tag`.
    Coding,
}

/// What comes next in the value that is walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// The `{` of the resource.
    #[default]
    Begin,
    /// The name of a property, or the end of the object.
    Member,
    /// The rest of the name of a property.
    Name,
    /// The value of a property, behind its colon; an element of an array, or its end.
    Value,
    /// The rest of a string.
    Text,
    /// The rest of a number or literal.
    Scalar,
    /// The rest of a value with so many containers open.
    Nested(u64),
    /// Nothing: the resource is complete.
    Nothing,
}

/// The property whose value comes next, or is passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Property {
    #[default]
    Other,
    /// `meta` of the resource.
    Meta,
    /// `tag` of `meta`.
    Tag,
    /// `system` of a Coding.
    System,
    /// `code` of a Coding.
    Code,
}

/// How far a row has been reduced; the default is its start.
#[derive(Default)]
struct PlaceInRow {
    strings: StringCarry,
    level: RowLevel,
    step: Step,
    property: Property,
    /// Whether the bytes at the position are copied.
    is_copying: bool,
    /// Whether a member of the resource has been written, and its `meta`.
    has_members: bool,
    has_meta: bool,
    /// Whether `meta` is an array, has an element or member before the position, has its tag, and `tag`s.
    in_meta_list: bool,
    meta_has_members: bool,
    is_tagged: bool,
    has_tags: bool,
    /// Whether `tag` is one object, which is made an array; whether it has an element, and the tag.
    is_lone_tag: bool,
    tags_have_elements: bool,
    tags_have_tag: bool,
    /// Whether the Coding has the system and the code of the tag.
    is_system: bool,
    is_code: bool,
}

impl LineReducer {
    /// A reducer to what a selection keeps of a type; `None` if the type is not reduced.
    pub fn of(selection: &ElementSelection, resource_type: ResourceType, kernel: Kernel) -> Option<LineReducer> {
        let names = KeptNames::of(selection, resource_type)?;
        Some(LineReducer { kernel, names, place: PlaceInRow::default(), held: Vec::new() })
    }

    /// Takes the next piece of a row, and appends to `out` what it gives.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let LineReducer { kernel, names, place, held } = self;
        kernel.run(ReducePiece { names, place, held, piece, out });
    }

    /// Ends the row. `false` if it is not complete.
    pub fn end_row(&mut self) -> bool {
        let is_complete = self.place.step == Step::Nothing;
        self.place = PlaceInRow::default();
        self.held.clear();
        is_complete
    }
}

/// A piece of a row to be reduced.
struct ReducePiece<'a> {
    names: &'a KeptNames,
    place: &'a mut PlaceInRow,
    held: &'a mut Vec<u8>,
    piece: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl KernelJob for ReducePiece<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self, vector: V) {
        let ReducePiece { names, place, held, piece, out } = self;
        let cursor = BlockCursor::new(vector, piece, place.strings);
        let mut walk = PieceWalk { names, piece, out, place, held, cursor, copy_from: 0, waits_to: None };
        walk.run();
        walk.copy_waiting();
        let PieceWalk { cursor, copy_from, .. } = walk;
        place.strings = cursor.finish();
        if place.is_copying {
            out.extend_from_slice(&piece[copy_from..]);
        }
    }
}

/// The walk through one piece.
struct PieceWalk<'a, V: Vector> {
    names: &'a KeptNames,
    piece: &'a [u8],
    out: &'a mut Vec<u8>,
    place: &'a mut PlaceInRow,
    held: &'a mut Vec<u8>,
    cursor: BlockCursor<'a, V>,
    /// Start of the bytes that are to be copied, if any are.
    copy_from: usize,
    /// End of members of the resource that wait to be copied together with the next one, if that stays and follows them
    /// directly: copies of single members would cost as much as the scan.
    waits_to: Option<usize>,
}

impl<V: Vector> PieceWalk<'_, V> {
    /// Takes step after step to the end of the piece.
    #[inline(always)]
    fn run(&mut self) {
        while let Some(byte) = self.cursor.byte() {
            match self.place.step {
                Step::Begin => {
                    self.cursor.at += 1;
                    if byte == b'{' {
                        self.out.push(b'{');
                        self.place.step = Step::Member;
                    }
                }
                Step::Member => self.begin_member(byte),
                Step::Name => {
                    let from = self.cursor.at;
                    if !self.end_name(from) {
                        return;
                    }
                }
                Step::Value => self.begin_value(byte),
                Step::Text => {
                    let from = self.cursor.at;
                    if !self.end_text(from) {
                        return;
                    }
                }
                Step::Scalar => {
                    let rest = &self.piece[self.cursor.at..];
                    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                    let Some(len) = rest.iter().position(ends) else { return };
                    self.cursor.at += len;
                    self.end_value();
                }
                Step::Nested(mut depth) => {
                    if !self.cursor.leave_containers(&mut depth) {
                        self.place.step = Step::Nested(depth);
                        return;
                    }
                    self.end_value();
                }
                Step::Nothing => return,
            }
        }
    }

    /// Takes the byte before a member of an object, or at its end.
    #[inline(always)]
    fn begin_member(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.cursor.at += 1;
                self.held.clear();
                self.place.step = Step::Name;
                let from = self.cursor.at;
                self.end_name(from);
            }
            b'}' => self.close_level(),
            // Between members; another value has no place here, and goes with what is between them.
            b'{' | b'[' => {
                self.cursor.at += 1;
                (self.place.step, self.place.property) = (Step::Nested(1), Property::Other);
            }
            _ => self.cursor.at += 1,
        }
    }

    /// Takes the name of a property up to its closing quote. `false` if that is not in the piece. `from` is where the name,
    /// or the rest of it, begins.
    #[inline(always)]
    fn end_name(&mut self, from: usize) -> bool {
        if !self.cursor.find_quote() {
            self.hold_raw(from);
            return false;
        }
        let end = self.cursor.at;
        self.cursor.at += 1;
        let is_whole = self.held.is_empty() && from > 0;
        if !is_whole {
            self.hold_raw_bytes(from, end);
        }
        let raw = if is_whole { &self.piece[from..end] } else { &self.held[..] };
        let place = &mut *self.place;
        place.step = Step::Value;
        place.property = Property::Other;
        match place.level {
            RowLevel::Resource => {
                let role = self.names.role(raw);
                let follows = |to: usize| is_whole && to + 2 == from && self.piece[to] == b',';
                if role == PropertyRole::Dropped {
                    self.copy_waiting();
                } else if self.waits_to.is_some_and(follows) {
                    (self.waits_to, place.is_copying) = (None, true);
                } else {
                    self.begin_copying(from, end, is_whole);
                }
                let place = &mut *self.place;
                if role == PropertyRole::Meta {
                    place.property = Property::Meta;
                    (place.has_meta, place.in_meta_list, place.is_tagged) = (true, false, false);
                }
            }
            RowLevel::Meta => {
                place.meta_has_members = true;
                if is_text(raw, "tag") {
                    place.property = Property::Tag;
                    place.has_tags = true;
                }
            }
            RowLevel::Coding if is_text(raw, "system") => {
                place.property = Property::System;
                place.is_system = false;
            }
            RowLevel::Coding if is_text(raw, "code") => {
                place.property = Property::Code;
                place.is_code = false;
            }
            RowLevel::Coding | RowLevel::MetaList | RowLevel::Tags => {}
        }
        true
    }

    /// Begins to copy a member of the resource, whose name stands at `from..end`, or its rest does.
    #[inline(always)]
    fn begin_copying(&mut self, from: usize, end: usize, is_whole: bool) {
        self.copy_waiting();
        if self.place.has_members {
            self.out.push(b',');
        }
        (self.place.has_members, self.place.is_copying) = (true, true);
        self.copy_from = from.wrapping_sub(1);
        if !is_whole {
            self.out.push(b'"');
            self.out.extend_from_slice(self.held);
            self.copy_from = end;
        }
    }

    /// Takes the first byte of a value, or one before it.
    #[inline(always)]
    fn begin_value(&mut self, byte: u8) {
        match (byte, self.place.level) {
            (b' ' | b'\t' | b'\n' | b'\r' | b':', _) => self.cursor.at += 1,
            (b',' | b'}', RowLevel::MetaList | RowLevel::Tags) => self.cursor.at += 1,
            (b']', RowLevel::MetaList | RowLevel::Tags) => self.close_level(),
            // A property without a value.
            (b',' | b'}', _) => self.end_value(),
            (_, RowLevel::Resource) if self.place.property == Property::Meta => self.begin_meta(byte),
            (_, RowLevel::MetaList) if byte == b'{' && !self.place.is_tagged => self.begin_meta(byte),
            (_, RowLevel::Meta) if self.place.property == Property::Tag => self.begin_tag(byte),
            (_, RowLevel::Tags) => {
                self.place.tags_have_elements = true;
                match byte {
                    b'{' => self.begin_coding(),
                    _ => self.begin_other(byte),
                }
            }
            (_, RowLevel::MetaList) => {
                self.place.meta_has_members = true;
                self.begin_other(byte);
            }
            _ => self.begin_other(byte),
        }
    }

    /// Takes the first byte of a value that is copied or left out as a whole.
    #[inline(always)]
    fn begin_other(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                self.cursor.at += 1;
                self.place.step = Step::Nested(1);
            }
            b'"' => {
                self.cursor.at += 1;
                self.held.clear();
                self.place.step = Step::Text;
                let from = self.cursor.at;
                self.end_text(from);
            }
            _ => {
                // The byte is taken whatever it is, so that every step moves on.
                self.cursor.at += 1;
                self.place.step = Step::Scalar;
            }
        }
    }

    /// Takes the first byte of `meta`.
    fn begin_meta(&mut self, byte: u8) {
        let place = &mut *self.place;
        match byte {
            b'{' => {
                self.cursor.at += 1;
                (place.level, place.step) = (RowLevel::Meta, Step::Member);
                (place.meta_has_members, place.has_tags) = (false, false);
            }
            b'[' => {
                self.cursor.at += 1;
                (place.level, place.step) = (RowLevel::MetaList, Step::Value);
                (place.in_meta_list, place.meta_has_members) = (true, false);
            }
            _ => {
                let value = SUBSETTED_META.strip_prefix("\"meta\":").expect("it begins so");
                self.replace_by(value);
                self.begin_other(byte);
            }
        }
    }

    /// Takes the first byte of `meta.tag`.
    fn begin_tag(&mut self, byte: u8) {
        let place = &mut *self.place;
        (place.tags_have_elements, place.tags_have_tag, place.is_lone_tag) = (false, false, byte == b'{');
        match byte {
            b'[' => {
                self.cursor.at += 1;
                (place.level, place.step) = (RowLevel::Tags, Step::Value);
            }
            b'{' => {
                self.insert(&["["]);
                self.begin_coding();
            }
            _ => {
                self.replace_by("[");
                self.out.extend_from_slice(SUBSETTED_CODING.as_bytes());
                self.out.push(b']');
                self.begin_other(byte);
            }
        }
    }

    /// Takes the `{` of a Coding.
    fn begin_coding(&mut self) {
        self.cursor.at += 1;
        let place = &mut *self.place;
        (place.level, place.step) = (RowLevel::Coding, Step::Member);
        (place.is_system, place.is_code) = (false, false);
    }

    /// Takes a string up to behind its closing quote. `false` if that is not in the piece. `from` is where the string, or the
    /// rest of it, begins.
    #[inline(always)]
    fn end_text(&mut self, from: usize) -> bool {
        let is_compared =
            self.place.level == RowLevel::Coding && matches!(self.place.property, Property::System | Property::Code);
        if !self.cursor.find_quote() {
            if is_compared {
                self.hold_raw(from);
            }
            return false;
        }
        if is_compared {
            self.compare_text(from);
        }
        self.cursor.at += 1;
        self.end_value();
        true
    }

    /// Compares the string that ends here with that of the tag.
    fn compare_text(&mut self, from: usize) {
        self.hold_raw_bytes(from, self.cursor.at);
        let place = &mut *self.place;
        match place.property {
            Property::System => place.is_system = is_text(self.held, SUBSETTED_SYSTEM),
            _ => place.is_code = is_text(self.held, SUBSETTED_CODE),
        }
    }

    /// Ends a value: the position is behind it.
    #[inline(always)]
    fn end_value(&mut self) {
        match self.place.level {
            RowLevel::Resource => {
                if self.place.is_copying {
                    (self.place.is_copying, self.waits_to) = (false, Some(self.cursor.at));
                }
                self.place.step = Step::Member;
            }
            level => {
                if !self.place.is_copying {
                    self.place.is_copying = true;
                    self.copy_from = self.cursor.at;
                }
                let is_list = matches!(level, RowLevel::MetaList | RowLevel::Tags);
                self.place.step = if is_list { Step::Value } else { Step::Member };
            }
        }
    }

    /// Takes the bracket that ends the object or array that is walked, after what is to stand before it.
    #[inline(always)]
    fn close_level(&mut self) {
        if self.place.level == RowLevel::Resource {
            self.copy_waiting();
            if !self.place.has_meta {
                if self.place.has_members {
                    self.out.push(b',');
                }
                self.out.extend_from_slice(SUBSETTED_META.as_bytes());
            }
            self.out.push(b'}');
            self.cursor.at += 1;
            self.place.step = Step::Nothing;
            return;
        }
        self.close_inner_level();
        self.end_value();
    }

    /// The same of one within the resource.
    fn close_inner_level(&mut self) {
        let place = &mut *self.place;
        let comma = |is_needed: bool| if is_needed { "," } else { "" };
        match place.level {
            RowLevel::Resource => {}
            RowLevel::MetaList => {
                place.level = RowLevel::Resource;
                if !place.is_tagged {
                    let comma = comma(place.meta_has_members);
                    self.insert(&[comma, SUBSETTED_META.strip_prefix("\"meta\":").expect("it begins so")]);
                }
            }
            RowLevel::Meta => {
                place.is_tagged = true;
                place.level = if place.in_meta_list { RowLevel::MetaList } else { RowLevel::Resource };
                if !place.has_tags {
                    let comma = comma(place.meta_has_members);
                    self.insert(&[comma, "\"tag\":[", SUBSETTED_CODING, "]"]);
                }
            }
            RowLevel::Tags => {
                place.level = RowLevel::Meta;
                if !place.tags_have_tag {
                    let comma = comma(place.tags_have_elements);
                    self.insert(&[comma, SUBSETTED_CODING]);
                }
            }
            RowLevel::Coding => {
                let is_tag = place.is_system && place.is_code;
                place.tags_have_tag |= is_tag;
                place.level = if place.is_lone_tag { RowLevel::Meta } else { RowLevel::Tags };
                if place.is_lone_tag {
                    self.cursor.at += 1;
                    self.insert(if is_tag { &["]"] } else { &[",", SUBSETTED_CODING, "]"] });
                    return;
                }
            }
        }
        self.cursor.at += 1;
    }

    /// Copies what is before the position, if it is to be copied, and then writes texts of its own.
    fn insert(&mut self, texts: &[&str]) {
        self.stop_copying();
        texts.iter().for_each(|text| self.out.extend_from_slice(text.as_bytes()));
        self.place.is_copying = true;
        self.copy_from = self.cursor.at;
    }

    /// Writes a text in place of the value that begins here.
    fn replace_by(&mut self, text: &str) {
        self.stop_copying();
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Copies what is before the position, if it is to be copied, and nothing behind it.
    #[inline(always)]
    fn stop_copying(&mut self) {
        if self.place.is_copying {
            self.out.extend_from_slice(&self.piece[self.copy_from..self.cursor.at]);
            self.place.is_copying = false;
        }
    }

    /// Copies the members of the resource that wait.
    #[inline(always)]
    fn copy_waiting(&mut self) {
        if let Some(to) = self.waits_to.take() {
            self.out.extend_from_slice(&self.piece[self.copy_from..to]);
        }
    }

    /// Keeps the raw text from `from` to the end of the piece.
    #[cold]
    fn hold_raw(&mut self, from: usize) {
        self.hold_raw_bytes(from, self.piece.len());
    }

    /// Keeps raw text, as far as it is compared.
    fn hold_raw_bytes(&mut self, from: usize, end: usize) {
        let room = (KEY_BYTES_MAX + 1).saturating_sub(self.held.len());
        self.held.extend_from_slice(&self.piece[from..end.min(from + room)]);
    }
}

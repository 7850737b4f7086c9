//! How a line is built: its keys, brackets and `null`s, with holes where its strings and numbers are.
//!
//! The lines of a file come out of one program and differ in few of their values. So most of a line can be compared with the
//! lines before it, in few and long pieces, and only the values that do differ have to be looked at. At first all values count
//! as part of how the line is built, but for the row's own; where a later line has another value, a hole is opened
//! ([`Outline::opened`]), and stays open. What is in an open hole must be a value of the same kind, a string or a number. So a
//! line that fits a pattern is built as the lines that it was learned from, which [`Scan`] has checked. A line that doesn't fit
//! is none the worse for it.

use super::scan::{Field, Hole, Scan};
use super::usual::Found;

/// What is kept of a line at most: bytes, without the row's own values, …
const MAX_BYTES: usize = 4_096;
/// … and holes. A line with more would hardly be like the next.
pub(super) const MAX_HOLES: usize = 64;

/// A few patterns, that of the last line first: a file may have its lines in two shapes, in any order.
#[derive(Debug)]
pub(super) struct Patterns([Pattern; 2]);

impl Patterns {
    pub(super) const fn new() -> Self {
        Self([Pattern::new(), Pattern::new()])
    }

    /// Reads a line that fits one of them; `None` for any other.
    pub(super) fn read<'l>(&mut self, scan: &mut Scan<'l>) -> Option<Found<'l>> {
        if let Some(found) = self.0[0].read(scan) {
            return Some(found);
        }
        scan.start();
        let found = self.0[1].read(scan)?;
        self.0.swap(0, 1);
        Some(found)
    }

    /// Learns how a line is built, from all of its values.
    pub(super) fn learn(&mut self, line: &[u8], holes: &[Hole], has_usage: bool) {
        let Some(outline) = Outline::new(line, holes, has_usage) else { return };
        match self.0.iter().position(|pattern| pattern.outline.is_like(&outline)) {
            Some(at) => {
                self.0.swap(0, at);
                let opened = self.0[0].outline.opened(outline);
                self.0[0] = Pattern::of(opened);
            }
            None => {
                self.0[1] = Pattern::of(outline);
                self.0.swap(0, 1);
            }
        }
    }
}

/// One line as it was met: what is outside of its values, and they.
#[derive(Debug)]
struct Outline {
    /// What is outside of the values; empty for no line at all.
    outside: Vec<u8>,
    values: Vec<Value>,
    has_usage: bool,
}

/// A value of a line.
#[derive(Debug)]
struct Value {
    /// Where in `outside` it stands.
    at: usize,
    field: Field,
    /// What all lines had there so far; `None` where they differ.
    same: Option<Vec<u8>>,
}

impl Outline {
    fn new(line: &[u8], holes: &[Hole], has_usage: bool) -> Option<Self> {
        let own = holes.iter().filter(|hole| hole.field.is_of_the_row()).map(|hole| hole.end - hole.begin);
        if holes.len() > MAX_HOLES || line.len() - own.sum::<usize>() > MAX_BYTES {
            return None;
        }
        let (mut outside, mut values, mut at) = (Vec::new(), Vec::new(), 0);
        for Hole { begin, end, field } in holes {
            outside.extend_from_slice(&line[at..*begin]);
            let value = &line[*begin..*end];
            // Behind a backslash it is not known where the next one is.
            let is_fixed = !field.is_of_the_row() && !value.contains(&b'\\');
            values.push(Value { at: outside.len(), field: *field, same: is_fixed.then(|| value.to_vec()) });
            at = *end;
        }
        outside.extend_from_slice(&line[at..]);
        Some(Self { outside, values, has_usage })
    }

    /// Whether the two differ in values at most.
    fn is_like(&self, other: &Self) -> bool {
        let alike = |(one, two): (&Value, &Value)| one.at == two.at && one.field == two.field;
        self.values.len() == other.values.len()
            && self.has_usage == other.has_usage
            && self.outside == other.outside
            && self.values.iter().zip(&other.values).all(alike)
    }

    /// This one with holes where the other has other values.
    fn opened(&self, mut other: Self) -> Self {
        for (value, mine) in other.values.iter_mut().zip(&self.values) {
            if value.same != mine.same {
                value.same = None;
            }
        }
        other
    }
}

/// An outline, made ready for reading.
#[derive(Debug)]
struct Pattern {
    outline: Outline,
    /// What is the same in all lines, in one piece.
    bytes: Vec<u8>,
    steps: Vec<Step>,
    /// The values in `bytes` that are wanted.
    kept: Vec<Kept>,
}

/// From the place before to a hole, or to the line's end.
#[derive(Debug)]
struct Step {
    /// Where in `bytes`, and in `kept`, what is of this step ends.
    bytes: usize,
    kept: usize,
    hole: Option<Field>,
}

/// A value that is the same in all lines.
#[derive(Debug)]
struct Kept {
    /// Where it stands, from its step's start.
    begin: usize,
    end: usize,
    field: Field,
}

impl Pattern {
    const fn new() -> Self {
        let outline = Outline { outside: Vec::new(), values: Vec::new(), has_usage: false };
        Self { outline, bytes: Vec::new(), steps: Vec::new(), kept: Vec::new() }
    }

    fn of(outline: Outline) -> Self {
        let (mut pattern, mut at, mut start) = (Self::new(), 0, 0);
        for value in &outline.values {
            pattern.bytes.extend_from_slice(&outline.outside[at..value.at]);
            at = value.at;
            let begin = pattern.bytes.len() - start;
            match &value.same {
                Some(same) => {
                    pattern.bytes.extend_from_slice(same);
                    if !matches!(value.field, Field::Text | Field::Number | Field::Count) {
                        pattern.kept.push(Kept { begin, end: begin + same.len(), field: value.field });
                    }
                }
                None => {
                    start = pattern.bytes.len();
                    pattern.steps.push(Step { bytes: start, kept: pattern.kept.len(), hole: Some(value.field) });
                }
            }
        }
        pattern.bytes.extend_from_slice(&outline.outside[at..]);
        pattern.steps.push(Step { bytes: pattern.bytes.len(), kept: pattern.kept.len(), hole: None });
        Self { outline, ..pattern }
    }

    fn read<'l>(&self, scan: &mut Scan<'l>) -> Option<Found<'l>> {
        let mut found = Found { has_usage: self.outline.has_usage, ..Found::default() };
        let (mut bytes, mut kept) = (0, 0);
        for step in &self.steps {
            let begin = scan.at;
            scan.word(self.bytes.get(bytes..step.bytes)?)?;
            for Kept { begin: from, end, field } in self.kept.get(kept..step.kept)? {
                // Read as if there were a hole, from where it stands.
                let behind = std::mem::replace(&mut scan.at, begin + from);
                value(scan, *field, &mut found)?;
                (scan.at == begin + end).then_some(())?;
                scan.at = behind;
            }
            (bytes, kept) = (step.bytes, step.kept);
            if let Some(field) = step.hole {
                value(scan, field, &mut found)?;
            }
        }
        scan.end()?;
        // No line is like one that was never met.
        (!self.steps.is_empty()).then_some(found)
    }
}

/// Reads the value of a field.
#[inline(always)]
fn value<'l>(scan: &mut Scan<'l>, field: Field, found: &mut Found<'l>) -> Option<()> {
    match field {
        Field::Text => scan.skip_inside()?,
        Field::Number => scan.skip_number()?,
        Field::Count => drop(scan.digits()?),
        Field::CustomId => found.custom_id = Some(scan.plain_inside()?),
        Field::Status => found.status = Some(scan.digits()?),
        Field::Model => found.model = Some(scan.plain_inside()?),
        Field::FinishReason => found.finish_reason = Some(scan.plain_inside()?),
        Field::Content => found.content = Some(scan.inside()?),
        Field::Input => found.tokens.input = scan.digits()?,
        Field::Output => found.tokens.output = scan.digits()?,
        Field::Cached => found.tokens.cached = scan.digits()?,
        Field::Reasoning => found.tokens.reasoning = scan.digits()?,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::usual::scanned;
    use super::*;

    fn line(id: &str, model: &str, more: &str) -> String {
        format!(
            r#"{{"custom_id":"{id}","response":{{"status_code":200,"body":{{"model":"{model}","choices":[{{"message":{{"content":"c {id}"}},"finish_reason":"stop"}}]}}}}{more}}}"#
        )
    }

    /// Whether a pattern fits, or what is there was learned.
    fn reads(patterns: &mut Patterns, line: &str) -> bool {
        let mut scan = Scan::new(line.as_bytes()).unwrap();
        let found = patterns.read(&mut scan);
        scan.start();
        let expected = scanned(&mut scan).unwrap();
        if let Some(found) = found {
            assert_eq!(format!("{found:?}"), format!("{expected:?}"));
            return true;
        }
        let (bytes, holes) = scan.holes();
        patterns.learn(bytes, holes, expected.has_usage);
        false
    }

    #[test]
    fn a_value_that_is_always_the_same_is_compared_and_another_opens_a_hole_for_good() {
        let mut patterns = Patterns::new();
        let met = |patterns: &mut Patterns, id, model| reads(patterns, &line(id, model, ""));
        assert!(!met(&mut patterns, "a-1", "m"));
        assert!(met(&mut patterns, "b-22", "m"));
        assert!(!met(&mut patterns, "c", "other"));
        assert!(met(&mut patterns, "d", "m") && met(&mut patterns, "e", "a third"));
    }

    #[test]
    fn lines_in_two_shapes_fit_in_any_order() {
        let mut patterns = Patterns::new();
        let shapes = ["", r#","id":null"#];
        shapes.iter().for_each(|more| assert!(!reads(&mut patterns, &line("a", "m", more))));
        for number in 0..9 {
            assert!(reads(&mut patterns, &line(&number.to_string(), "m", shapes[number % 2])));
        }
        assert!(!reads(&mut patterns, &line("a", "m", r#","id":true"#)));
    }
}

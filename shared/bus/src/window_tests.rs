use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn offsets(runs: &[Range<i64>]) -> BTreeSet<i64> {
    runs.iter().cloned().flatten().collect()
}

#[test]
fn the_mark_waits_for_the_lowest_open_record() {
    let mut window = Window::starting_at(5, "");
    assert_eq!(window.position(), Some((5, String::new())));
    for offset in 5..9 {
        assert!(window.deliver(offset));
    }
    assert!(window.finish(6));
    assert!(window.finish(8));
    assert_eq!(window.mark(), Some(5));
    assert!(window.finish(5));
    assert_eq!(window.mark(), Some(7));
    assert!(!window.finish(5), "a record is finished once");
    assert!(window.finish(7));
    assert_eq!(window.position(), Some((9, String::new())));
}

#[test]
fn a_gap_between_deliveries_does_not_hold_the_mark() {
    let mut window = Window::unknown();
    assert_eq!(window.mark(), None);
    assert!(window.deliver(100));
    assert!(window.deliver(1000));
    assert!(window.finish(100));
    assert_eq!(window.mark(), Some(1000));
    assert!(window.finish(1000));
    assert_eq!(window.mark(), Some(1001));
}

#[test]
fn a_restart_skips_what_was_finished_beyond_the_mark() {
    let mut window = Window::starting_at(0, "");
    for offset in 0..10 {
        window.deliver(offset);
    }
    for offset in [1, 2, 5, 9] {
        window.finish(offset);
    }
    let (mark, metadata) = window.position().unwrap();
    assert_eq!((mark, metadata.as_str()), (0, "1ABCCBDB"));
    let mut again = Window::starting_at(mark, &metadata);
    let delivered: Vec<i64> = (0..10).filter(|offset| again.deliver(*offset)).collect();
    assert_eq!(delivered, [0, 3, 4, 6, 7, 8]);
    assert_eq!(again.position().unwrap(), (mark, metadata));
}

#[test]
fn a_restart_before_any_delivery_keeps_what_is_known() {
    let metadata = encode(7, [9..11, 20..21].into_iter());
    assert_eq!(Window::starting_at(7, &metadata).position(), Some((7, metadata)));
}

#[test]
fn a_log_that_was_made_anew_is_delivered_from_its_start() {
    let mut window = Window::starting_at(100, &encode(100, std::iter::once(101..105)));
    assert!(window.deliver(0));
    assert!(window.deliver(1));
    assert_eq!(window.mark(), Some(0));
    assert!(window.deliver(102), "what was finished was another record");
}

#[test]
fn metadata_of_another_offset_or_version_reads_as_nothing_finished() {
    let metadata = encode(7, std::iter::once(9..11));
    assert_eq!(offsets(&decode(&metadata, 7)), BTreeSet::from([9, 10]));
    assert!(decode(&metadata, 6).is_empty());
    assert!(decode(&metadata.replacen('1', "2", 1), 7).is_empty());
    assert!(decode(&metadata[..metadata.len() - 1], 7).is_empty(), "cut short");
    assert!(decode("", 7).is_empty());
    assert!(decode("host-1.example", 7).is_empty());
    assert!(decode("1________________", 7).is_empty(), "a number without an end");
}

#[test]
fn what_does_not_fit_is_left_out_from_the_far_end() {
    let mut window = Window::starting_at(0, "");
    for offset in 0..20_000 {
        window.deliver(offset);
    }
    for offset in (1..20_000).step_by(2) {
        window.finish(offset);
    }
    let (mark, metadata) = window.position().unwrap();
    assert!(metadata.len() <= MAX_METADATA && metadata.len() > MAX_METADATA - 3);
    let runs = decode(&metadata, mark);
    assert_eq!(runs.first(), Some(&(1..2)));
    assert!(runs.len() > 2000);
}

/// What a consumer does: it comes to the next offset after a gap, or finishes one of the open records.
#[derive(Clone, Debug)]
enum Step {
    Deliver { gap: i64 },
    Finish { which: prop::sample::Index },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => prop_oneof![9 => Just(0i64), 1 => 1..50i64].prop_map(|gap| Step::Deliver { gap }),
        4 => any::<prop::sample::Index>().prop_map(|which| Step::Finish { which }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// Against a plain model: the set of records in the log, and the set of finished ones.
    #[test]
    fn no_record_is_lost_and_none_finished_comes_again(start in 0i64..1 << 50, steps in steps()) {
        let mut log: Vec<i64> = Vec::new();
        let mut read = 0;
        let mut open: BTreeSet<i64> = BTreeSet::new();
        let mut finished: BTreeSet<i64> = BTreeSet::new();
        let mut window = Window::starting_at(start, "");
        let mut end = start;
        for step in steps {
            match step {
                Step::Deliver { gap } => {
                    if read == log.len() {
                        log.push(end + gap);
                        end += gap + 1;
                    }
                    let offset = log[read];
                    read += 1;
                    prop_assert_eq!(window.deliver(offset), !finished.contains(&offset));
                    if !finished.contains(&offset) {
                        open.insert(offset);
                    }
                }
                Step::Finish { which } => {
                    if !open.is_empty() {
                        let offset = *open.iter().nth(which.index(open.len())).unwrap();
                        prop_assert!(window.finish(offset));
                        open.remove(&offset);
                        finished.insert(offset);
                    }
                }
                Step::Restart => {
                    let (mark, metadata) = window.position().unwrap();
                    window = Window::starting_at(mark, &metadata);
                    read = log.partition_point(|offset| *offset < mark);
                    open.clear();
                }
            }
            let (mark, metadata) = window.position().unwrap();
            prop_assert!(metadata.len() <= MAX_METADATA);
            for offset in &log {
                prop_assert!(*offset >= mark || finished.contains(offset), "{} is lost", offset);
            }
            // It fits here, so what is read back is the truth, and not only a part of it.
            let beyond = offsets(&decode(&metadata, mark));
            for offset in log.iter().filter(|offset| **offset > mark) {
                prop_assert_eq!(beyond.contains(offset), finished.contains(offset));
            }
        }
    }

    #[test]
    fn what_is_read_back_is_what_was_written_or_its_beginning(
        mark in 0i64..1 << 55,
        lengths in prop::collection::vec((1i64..5000, 1i64..5000), 0..3000),
    ) {
        let mut at = mark;
        let mut runs = Vec::new();
        for (gap, length) in lengths {
            runs.push(at + gap..at + gap + length);
            at += gap + length;
        }
        let metadata = encode(mark, runs.iter().cloned());
        prop_assert!(metadata.len() <= MAX_METADATA);
        let back = decode(&metadata, mark);
        prop_assert_eq!(&runs[..back.len()], &back[..]);
        let whole: usize = runs.len() * 6 + 12;
        prop_assert!(back.len() == runs.len() || whole > MAX_METADATA);
    }

    #[test]
    fn garbage_never_panics_and_never_reaches_below_the_commit(
        text in prop_oneof![any::<String>(), "1[A-Za-z0-9_-]{0,80}", "[ -~]{0,200}"],
        committed in any::<i64>(),
    ) {
        for run in decode(&text, committed) {
            prop_assert!(run.start > committed && run.end > run.start);
        }
        let mut window = Window::starting_at(committed, &text);
        window.deliver(committed);
        prop_assert_eq!(window.mark(), Some(committed));
    }
}

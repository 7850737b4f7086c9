//! Lies on purpose: a script says which requests, batches and rows are treated as a real provider treats them on a bad day.
//!
//! What it promises:
//! - **The ledger stays true.** However a create is answered, a batch that was accepted is in it, and no other is. What
//!   was executed, and so is billed, is in `billed.jsonl` (see `billed`), whatever the result files say.
//! - Every rule says how often it fired: a test whose fault never fired has tested nothing.
//! - What goes wrong is a function of the script, the seed and the order of requests.
//!
//! Faults of requests are chosen when the request comes (`requests`). Faults of batches and rows are chosen when the batch is
//! created and stay with it, on disk too, so a restart does not change a batch's fate; `view` and `run` act on them, `lines`
//! on those of rows. A script can be replaced while the simulator runs (`api`); batches keep what they have.
//!
//! What it deliberately lacks: faults that hit only one client, and counters that survive a restart.

pub(crate) mod api;
pub(crate) mod fault;
pub(crate) mod lines;
pub(crate) mod requests;
pub(crate) mod rule;
pub(crate) mod view;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{models::sha256_hex, store::lock};
pub(crate) use fault::{Fault, Operation, Target};
pub(crate) use rule::When;
use rule::{Rule, Script};

/// What conditions can be about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) metadata: Option<&'a BTreeMap<String, String>>,
    pub(crate) filename: Option<&'a str>,
}

impl Subject<'_> {
    fn fits(&self, when: &When) -> bool {
        let value = |key: &String| self.metadata.and_then(|metadata| metadata.get(key));
        let has = |(key, part): (&String, &String)| value(key).is_some_and(|value| value.contains(part.as_str()));
        when.metadata.iter().all(has)
            && when.filename.as_ref().is_none_or(|part| self.filename.is_some_and(|name| name.contains(part.as_str())))
    }
}

/// A fault that was chosen for a request, a file or a batch, and the rule that it is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Chosen {
    /// The digest of the script, so that another script's rules are not counted up.
    script: String,
    rule: usize,
    pub(crate) fault: Fault,
    /// Which rows, for faults of rows.
    pub(crate) rows: Option<When>,
}

/// A rule at work.
#[derive(Debug)]
struct Live {
    rule: Rule,
    seen: u64,
    fired: u64,
}

#[derive(Debug, Default)]
struct State {
    script: String,
    rules: Vec<Live>,
    /// How often a chosen fault acted on one thing, for those that act so many times.
    uses: HashMap<(String, String, usize), u64>,
    /// Files that aren't found for a while.
    hidden: HashMap<String, Chosen>,
}

/// The script at work.
#[derive(Debug)]
pub(crate) struct Faults {
    seed: u64,
    state: Mutex<State>,
}

impl Faults {
    pub(crate) fn new(seed: u64, script: Script) -> Self {
        let faults = Self { seed, state: Mutex::default() };
        faults.replace(script);
        faults
    }

    /// Puts another script in the place of the present one, and counts anew.
    pub(crate) fn replace(&self, script: Script) {
        let text = serde_json::to_string(&script.0).unwrap_or_default();
        let mut state = lock(&self.state);
        state.script = sha256_hex(text.as_bytes())[..16].to_owned();
        state.rules = script.0.into_iter().map(|rule| Live { rule, seen: 0, fired: 0 }).collect();
    }

    /// The script, with how often each rule's conditions held and how often its fault acted.
    pub(crate) fn shown(&self) -> Value {
        let state = lock(&self.state);
        let shown = |live: &Live| json!({"rule": live.rule, "seen": live.seen, "fired": live.fired});
        json!({"rules": state.rules.iter().map(shown).collect::<Vec<_>>()})
    }

    /// Whether any rule is about such requests.
    fn has(&self, on: Operation) -> bool {
        lock(&self.state).rules.iter().any(|live| live.rule.fault.target() == Target::Request(on))
    }

    /// The faults that the rules choose for this subject, in their order. Every rule counts it, whatever others choose.
    pub(crate) fn choose(&self, wanted: impl Fn(&Fault) -> bool, subject: &Subject<'_>) -> Vec<Chosen> {
        let mut state = lock(&self.state);
        let State { script, rules, .. } = &mut *state;
        let mut chosen = Vec::new();
        for (at, live) in rules.iter_mut().enumerate() {
            if !wanted(&live.rule.fault) || !subject.fits(&live.rule.when) {
                continue;
            }
            live.seen += 1;
            if live.rule.when.counts(live.seen, || roll(&[self.seed, at as u64, live.seen])) {
                let (script, fault, rows) = (script.clone(), live.rule.fault.clone(), live.rule.rows.clone());
                chosen.push(Chosen { script, rule: at, fault, rows });
            }
        }
        chosen
    }

    /// The first fault that the rules choose for a request. It acts.
    fn strike(&self, on: Operation, subject: &Subject<'_>) -> Option<Fault> {
        let chosen = self.choose(|fault| fault.target() == Target::Request(on), subject).into_iter().next()?;
        self.fired(&chosen);
        Some(chosen.fault)
    }

    /// A fault acted.
    pub(crate) fn fired(&self, chosen: &Chosen) {
        let mut state = lock(&self.state);
        if state.script == chosen.script
            && let Some(live) = state.rules.get_mut(chosen.rule)
        {
            live.fired += 1;
        }
    }

    /// Whether a fault acts on this thing once more: it does so `most` times, or for ever.
    pub(crate) fn spend(&self, id: &str, chosen: &Chosen, most: Option<u64>) -> bool {
        if let Some(most) = most {
            let mut state = lock(&self.state);
            let used = state.uses.entry((id.to_owned(), chosen.script.clone(), chosen.rule)).or_default();
            if *used >= most {
                return false;
            }
            *used += 1;
        }
        self.fired(chosen);
        true
    }

    /// A file was uploaded: it may not be found for a while.
    pub(crate) fn uploaded(&self, id: &str, filename: &str) {
        let subject = Subject { filename: Some(filename), metadata: None };
        let chosen = self.choose(|fault| matches!(fault, Fault::FileNotFound { .. }), &subject);
        if let Some(chosen) = chosen.into_iter().next() {
            lock(&self.state).hidden.insert(id.to_owned(), chosen);
        }
    }

    /// Whether a request for this file doesn't find it.
    pub(crate) fn hides(&self, id: &str) -> bool {
        let Some(chosen) = lock(&self.state).hidden.get(id).cloned() else { return false };
        let Fault::FileNotFound { requests } = chosen.fault else { return false };
        self.spend(id, &chosen, Some(requests))
    }
}

/// A number from 0 to 1 that these decide.
pub(crate) fn roll(of: &[u64]) -> f64 {
    // Each step mixes one number in: the generator's own output is well spread.
    let mix =
        |state: u64, next: &u64| fastrand::Rng::with_seed(state ^ next.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..);
    fastrand::Rng::with_seed(of.iter().fold(0, mix)).f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(script: &str) -> Faults {
        Faults::new(7, script.parse().unwrap())
    }

    fn creates(faults: &Faults, times: usize) -> Vec<bool> {
        (0..times).map(|_| faults.strike(Operation::Create, &Subject::default()).is_some()).collect()
    }

    #[test]
    fn rules_count_for_themselves_and_the_first_that_chooses_acts() {
        let faults = faults(
            r#"[{"fault":"create_dropped_after","when":{"nth":2}},{"fault":"create_dropped_before","when":{"first":2}}]"#,
        );
        let struck: Vec<_> = (0..3).map(|_| faults.strike(Operation::Create, &Subject::default())).collect();
        assert_eq!(struck, [Some(Fault::CreateDroppedBefore {}), Some(Fault::CreateDroppedAfter {}), None]);
        let shown = faults.shown();
        assert_eq!((&shown["rules"][0]["fired"], &shown["rules"][1]["fired"]), (&json!(1), &json!(1)));
        assert_eq!(shown["rules"][1]["seen"], 3);
    }

    #[test]
    fn conditions_are_about_metadata_and_names() {
        let faults = faults(
            r#"[{"fault":"create_dropped_after","when":{"metadata":{"batchmill":"/2/"}}},{"fault":"create_failed","when":{"filename":"x"}}]"#,
        );
        let metadata = BTreeMap::from([("batchmill".to_owned(), "job/2/1".to_owned())]);
        let subject = Subject { metadata: Some(&metadata), filename: Some("axb") };
        assert_eq!(faults.choose(|_| true, &subject).len(), 2);
        assert_eq!(faults.choose(|_| true, &Subject::default()).len(), 0);
        assert_eq!(faults.shown()["rules"][0]["seen"], 1, "what does not fit is not counted");
    }

    #[test]
    fn chance_is_decided_by_the_seed() {
        let script = r#"[{"fault":"create_dropped_after","when":{"chance":0.3}}]"#;
        let first = creates(&faults(script), 1_000);
        assert_eq!(first, creates(&faults(script), 1_000));
        let struck = first.iter().filter(|struck| **struck).count();
        assert!((230..370).contains(&struck), "{struck}");
        assert_ne!(first, creates(&Faults::new(8, script.parse().unwrap()), 1_000));
    }

    #[test]
    fn a_file_is_not_found_so_often_and_another_script_is_not_counted_up() {
        let faults = faults(r#"[{"fault":"file_not_found","requests":2,"when":{"nth":1}}]"#);
        faults.uploaded("file-1", "a");
        faults.uploaded("file-2", "a");
        assert_eq!([(); 3].map(|()| faults.hides("file-1")), [true, true, false]);
        assert!(!faults.hides("file-2"));
        assert_eq!(faults.shown()["rules"][0]["fired"], 2);
        faults.uploaded("file-1", "a");
        faults.replace(r#"[{"fault":"list_lags"}]"#.parse().unwrap());
        assert_eq!(faults.shown()["rules"][0]["fired"], 0);
    }
}

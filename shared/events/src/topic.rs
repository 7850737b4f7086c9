//! The topics: their names, what each carries, and the settings with which `topics apply` creates them.
//!
//! Names have dots only: Kafka refuses a topic `a.b` beside `a_b` (KAFKA-13743), so the configurable prefix may have no
//! underscore. A team's jobs topic has the team in its name, because the broker's ACLs guard names; a field in the
//! event could be written by anyone.
//!
//! `batches`, `retries`, `submissions` and `results` are kept for longer than a batch can live, since offsets of
//! unfinished events stay open for as long. Replication is the cluster's business and not set here.

use model::Team;

use crate::event::Kind;

/// The topics, each a place in the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What callers ask for. One is shared; each team may have its own.
    Jobs,
    /// First attempts, ready for a provider.
    Batches,
    /// Later attempts, ready for a provider.
    Retries,
    /// Attempts that left the dispatcher.
    Submissions,
    /// Plans, and attempts that were collected.
    Results,
    /// How each job ended: the public read side, compacted.
    Status,
}

/// What happens to old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// They are removed after so many days.
    Days(u32),
    /// The last record of each key stays for ever.
    Compact,
}

/// How a topic is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSettings {
    /// Partitions.
    pub partitions: u32,
    /// What happens to old records.
    pub retention: Retention,
}

impl TopicSettings {
    /// The settings of dead-letter topics: few records, kept for a month.
    pub const DEAD_LETTER: Self = Self { partitions: 3, retention: Retention::Days(30) };

    /// The topic's configuration as Kafka spells it.
    #[must_use]
    pub fn config(&self) -> Vec<(&'static str, String)> {
        match self.retention {
            Retention::Days(days) => {
                vec![
                    ("cleanup.policy", "delete".to_owned()),
                    ("retention.ms", (u64::from(days) * 86_400_000).to_string()),
                ]
            }
            Retention::Compact => vec![("cleanup.policy", "compact".to_owned())],
        }
    }
}

impl Topic {
    /// Every topic, in the order in which a row meets them.
    pub const ALL: &'static [Self] =
        &[Self::Jobs, Self::Batches, Self::Retries, Self::Submissions, Self::Results, Self::Status];

    /// The topic's word in its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Batches => "batches",
            Self::Retries => "retries",
            Self::Submissions => "submissions",
            Self::Results => "results",
            Self::Status => "status",
        }
    }

    /// The kinds of events that travel on it.
    #[must_use]
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Jobs => &[Kind::JobSubmitted, Kind::JobCancelRequested],
            Self::Batches | Self::Retries => &[Kind::BatchReady],
            Self::Submissions => &[Kind::BatchDispatched],
            Self::Results => &[Kind::JobPlanned, Kind::BatchCollected],
            Self::Status => &[Kind::JobEnded],
        }
    }

    /// Whether events of this kind travel on it.
    #[must_use]
    pub fn carries(self, kind: Kind) -> bool {
        self.kinds().contains(&kind)
    }

    /// The room whose consumer group reads it; none for the public read side.
    #[must_use]
    pub fn consumer(self) -> Option<&'static str> {
        match self {
            Self::Jobs => Some("splitter"),
            Self::Batches | Self::Retries => Some("dispatcher"),
            Self::Submissions => Some("poller"),
            Self::Results => Some("merger"),
            Self::Status => None,
        }
    }

    /// The topics that rooms read, each with its room, in the order in which a row meets them.
    pub fn consumed() -> impl Iterator<Item = (Self, &'static str)> {
        Self::ALL.iter().filter_map(|topic| Some((*topic, topic.consumer()?)))
    }

    /// How it is created unless the operator says otherwise.
    #[must_use]
    pub fn settings(self) -> TopicSettings {
        match self {
            Self::Jobs => TopicSettings { partitions: 12, retention: Retention::Days(7) },
            Self::Batches | Self::Retries | Self::Submissions | Self::Results => {
                TopicSettings { partitions: 24, retention: Retention::Days(14) }
            }
            Self::Status => TopicSettings { partitions: 12, retention: Retention::Compact },
        }
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// A topic prefix that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the topic prefix {0:?} is not valid: use 1 to 64 of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit \
     (no '_', since Kafka refuses a topic a_b beside a.b)"
)]
pub struct InvalidPrefix(String);

/// The names of all topics under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

/// What a topic's name says: which topic it is and, for jobs topics, whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic.
    pub topic: Topic,
    /// On the jobs topics the team; none on the others.
    pub team: Option<Team>,
}

impl Default for Topics {
    /// The names under `batchmill`.
    fn default() -> Self {
        Self { prefix: "batchmill".to_owned() }
    }
}

impl Topics {
    /// The names under a prefix.
    ///
    /// # Errors
    /// [`InvalidPrefix`] if Kafka would refuse the names, or they could not be told apart.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = prefix.as_bytes();
        let all_fit = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if edge(bytes.first()) && edge(bytes.last()) && all_fit && bytes.len() <= 64 {
            return Ok(Self { prefix: prefix.to_owned() });
        }
        Err(InvalidPrefix(prefix.chars().take(80).collect()))
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A topic's name: `batchmill.batches.v1`. For [`Topic::Jobs`] this is the shared one.
    #[must_use]
    pub fn name(&self, topic: Topic) -> String {
        format!("{}.{}.v1", self.prefix, topic.word())
    }

    /// A team's jobs topic: `batchmill.jobs.<team>.v1`; for the shared team the shared topic.
    #[must_use]
    pub fn jobs_of(&self, team: &Team) -> String {
        if *team == Team::shared() {
            return self.name(Topic::Jobs);
        }
        format!("{}.jobs.{team}.v1", self.prefix)
    }

    /// A pattern that matches all jobs topics, for a subscription: POSIX extended, anchored, as librdkafka takes it.
    #[must_use]
    pub fn jobs_pattern(&self) -> String {
        format!(r"^{}\.jobs\.([a-z0-9][a-z0-9_-]*\.)?v1$", self.prefix.replace('.', r"\."))
    }

    /// What a topic's name says; `None` for a name that is not one of these.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        let rest = name.strip_prefix(&self.prefix)?.strip_prefix('.')?.strip_suffix(".v1")?;
        if let Some(topic) = Topic::ALL.iter().copied().find(|topic| topic.word() == rest) {
            return Some(Place { topic, team: (topic == Topic::Jobs).then(Team::shared) });
        }
        let team = rest.strip_prefix("jobs.")?.parse().ok()?;
        Some(Place { topic: Topic::Jobs, team: Some(team) })
    }

    /// The team of a jobs topic, by its name; `None` for any other name.
    #[must_use]
    pub fn team_of(&self, name: &str) -> Option<Team> {
        self.place(name)?.team
    }

    /// The dead-letter topic of a consumer group for one of its topics: `dlq.<group>.<topic>`.
    #[must_use]
    pub fn dead_letters(group: &str, topic: &str) -> String {
        format!("dlq.{group}.{topic}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_these() {
        let topics = Topics::default();
        let names: Vec<String> = Topic::ALL.iter().map(|topic| topics.name(*topic)).collect();
        let expected =
            ["jobs", "batches", "retries", "submissions", "results", "status"].map(|w| format!("batchmill.{w}.v1"));
        assert_eq!(names, expected);
        assert_eq!(topics.jobs_of(&"search".parse().unwrap()), "batchmill.jobs.search.v1");
        assert_eq!(topics.jobs_of(&Team::shared()), "batchmill.jobs.v1");
        assert_eq!(
            Topics::dead_letters("batchmill-splitter", "batchmill.jobs.v1"),
            "dlq.batchmill-splitter.batchmill.jobs.v1"
        );
        assert_eq!(topics.jobs_pattern(), r"^batchmill\.jobs\.([a-z0-9][a-z0-9_-]*\.)?v1$");
    }

    #[test]
    fn the_team_comes_from_the_name_of_a_jobs_topic_and_from_no_other() {
        let topics = Topics::default();
        assert_eq!(topics.team_of("batchmill.jobs.v1"), Some(Team::shared()));
        assert_eq!(topics.team_of("batchmill.jobs.v1.v1").unwrap().as_str(), "v1");
        assert_eq!(topics.team_of("batchmill.jobs.search.v1").unwrap().as_str(), "search");
        for other in [
            "batchmill.batches.v1",
            "batchmill.jobs.a.b.v1",
            "batchmill.jobs.A.v1",
            "batchmill.jobs..v1",
            "x.jobs.v1",
            "batchmill.jobs.v2",
            "",
        ] {
            assert_eq!(topics.team_of(other), None, "{other}");
        }
    }

    #[test]
    fn retention_outlives_a_batch_and_status_is_kept_for_ever() {
        for topic in [Topic::Batches, Topic::Retries, Topic::Submissions, Topic::Results] {
            assert_eq!(topic.settings().config()[1], ("retention.ms", "1209600000".to_owned()));
        }
        assert_eq!(Topic::Jobs.settings().config()[1].1, "604800000");
        assert_eq!(Topic::Status.settings().config(), [("cleanup.policy", "compact".to_owned())]);
    }

    #[test]
    fn a_prefix_that_kafka_or_a_reader_could_mistake_is_refused() {
        for good in ["batchmill", "acme.batchmill", "a-1"] {
            assert_eq!(Topics::new(good).unwrap().prefix(), good);
        }
        for bad in ["", ".", "a.", ".a", "a_b", "A", "a/b", "ä", &"x".repeat(65)] {
            assert!(Topics::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_reads_back_under_any_prefix(prefix in "[a-z0-9]([a-z0-9.-]{0,10}[a-z0-9])?", team in "[a-z0-9][a-z0-9_-]{0,63}") {
            let topics = Topics::new(&prefix).unwrap();
            for topic in Topic::ALL {
                prop_assert_eq!(topics.place(&topics.name(*topic)).unwrap().topic, *topic);
            }
            let team: Team = team.parse().unwrap();
            prop_assert_eq!(topics.team_of(&topics.jobs_of(&team)), Some(team));
        }

        #[test]
        fn no_name_makes_the_reader_panic(name in ".*") {
            let _ = Topics::default().place(&name);
        }
    }
}

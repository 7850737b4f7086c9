//! One row of the table, and how it is checked.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{EndFact, FailureKind, JobSpec};
use serde_json::{Value, json};
use tests::http_mill::{BatchRows, HttpMill};

const IN: &str = "s3://lake/in/table.csv";
const OUT: &str = "s3://lake/out/table.csv";
/// A job that takes longer is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(50);
/// How long a fault may take to show in the ledger after the job's end.
const LATE: Duration = Duration::from_secs(20);

/// How a row ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// With its own answer.
    Answered,
    /// With this text as its answer.
    As(&'static str),
    /// With this kind, and a message that contains this.
    Failed(FailureKind, &'static str),
}

/// How the four rows end.
#[derive(Debug, Clone)]
pub(crate) enum Ends {
    /// Each so.
    All(End),
    /// All are answered but this one.
    But(usize, End),
    /// So many are answered, the others end so: the provider decides which.
    Some(usize, End),
}

/// Which rows the accepted batches had, in order.
#[derive(Debug, Clone)]
pub(crate) enum Sent {
    /// These rows each.
    Rows(&'static [&'static [usize]]),
    /// So many each.
    Counts(&'static [usize]),
}

/// How often rows were executed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Paid {
    /// Each row so often.
    Each([u32; 4]),
    /// Answered rows once, others never.
    IfAnswered,
}

/// A lie and what comes of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) script: Value,
    /// Fields of the job's spec besides the usual ones.
    pub(crate) job: Value,
    /// The provider's request time-out.
    pub(crate) patience: Duration,
    pub(crate) ends: Ends,
    pub(crate) sent: Sent,
    pub(crate) paid: Paid,
}

/// One batch of all rows.
pub(crate) const ONCE: Sent = Sent::Rows(&[&[0, 1, 2, 3]]);

impl Case {
    /// A lie that nobody notices: every row answered, sent once and paid once.
    pub(crate) fn new(name: impl Into<String>, script: Value) -> Self {
        Self {
            name: name.into(),
            script,
            job: json!({}),
            patience: Duration::from_secs(20),
            ends: Ends::All(End::Answered),
            sent: ONCE,
            paid: Paid::Each([1; 4]),
        }
    }

    pub(crate) fn job(self, job: Value) -> Self {
        Self { job, ..self }
    }

    pub(crate) fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn ends(self, ends: Ends) -> Self {
        Self { ends, ..self }
    }

    pub(crate) fn sent(self, sent: Sent) -> Self {
        Self { sent, ..self }
    }

    pub(crate) fn paid(self, paid: [u32; 4]) -> Self {
        Self { paid: Paid::Each(paid), ..self }
    }

    pub(crate) fn paid_if_answered(self) -> Self {
        Self { paid: Paid::IfAnswered, ..self }
    }

    /// Nothing is accepted, nothing paid, and all rows fail so.
    pub(crate) fn refused(self, kind: FailureKind, says: &'static str) -> Self {
        self.ends(Ends::All(End::Failed(kind, says))).sent(Sent::Rows(&[])).paid([0; 4])
    }

    /// The names of its faults.
    pub(crate) fn faults(&self) -> Vec<String> {
        let rules = self.script.as_array().expect("a script is a list");
        rules.iter().map(|rule| rule["fault"].as_str().expect("a rule has a fault").to_owned()).collect()
    }
}

fn prompt(row: usize) -> String {
    format!("row {row}")
}

/// What a run came to.
struct Seen {
    end: EndFact,
    ends: Vec<End>,
    messages: Vec<String>,
    sent: Vec<Vec<usize>>,
    paid: [u32; 4],
}

/// Runs a case; what differs from the table, if anything.
pub(crate) async fn check(case: Case) -> Result<(), String> {
    let checked = run(&case).await.and_then(|seen| compare(&case, &seen).map_err(anyhow::Error::msg));
    checked.map_err(|error| format!("- {}: {error:#}", case.name))
}

async fn run(case: &Case) -> anyhow::Result<Seen> {
    let script = simulator::Script::try_from(case.script.clone()).map_err(anyhow::Error::msg)?;
    let mill = HttpMill::start(script, case.patience).await?;
    let table: String = (0..4).map(|row| format!("{row},{}\n", prompt(row))).collect();
    mill.put(IN, format!("id,title\n{table}").as_bytes()).await?;
    let mut spec = json!({
        "id": "job", "input": {"uri": IN}, "output": {"uri": OUT},
        "request": {"model": "sim/echo", "template": "{{ title }}"},
    });
    let fields = case.job.as_object().expect("fields of a spec").clone();
    spec.as_object_mut().expect("an object").extend(fields);
    let spec: JobSpec = serde_json::from_value(spec)?;
    let end = mill.run(&spec, STUCK_AFTER).await?;
    let output = String::from_utf8(mill.get(OUT).await?)?;
    let (ends, messages) = output.lines().skip(1).enumerate().map(|(row, line)| end_of(row, line)).unzip();
    settle(&mill, case).await?;
    let (sent, paid) = accounts(&mill)?;
    let idle: Vec<String> = mill.fired().into_iter().filter(|(_, fired)| *fired == 0).map(|(fault, _)| fault).collect();
    anyhow::ensure!(idle.is_empty(), "these faults never fired: {idle:?}");
    mill.stop().await;
    Ok(Seen { end, ends, messages, sent, paid })
}

/// A lie may come true only after the job has ended: waits until the provider has accepted and run what the table says.
async fn settle(mill: &HttpMill, case: &Case) -> anyhow::Result<()> {
    let batches = match &case.sent {
        Sent::Rows(rows) => rows.len(),
        Sent::Counts(counts) => counts.len(),
    };
    let begun = tokio::time::Instant::now();
    let paid: u32 = match case.paid {
        Paid::Each(paid) => paid.iter().sum(),
        Paid::IfAnswered => 0,
    };
    let there = || -> anyhow::Result<bool> {
        Ok(mill.ledger()?.len() >= batches && accounts(mill)?.1.iter().sum::<u32>() >= paid)
    };
    while !there()? && begun.elapsed() < LATE {
        mill.change(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// How a line of the output says that its row ended, and the message if it failed. Our texts need no quotes, but messages may.
fn end_of(row: usize, line: &str) -> (End, String) {
    let fields: Vec<&str> = line.splitn(4, ',').collect();
    let (answer, error) = (fields[2], fields[3].trim_matches('"'));
    if error.is_empty() {
        let own = answer == prompt(row);
        return (if own { End::Answered } else { End::As(answer.to_owned().leak()) }, String::new());
    }
    let (kind, message) = error.split_once(": ").unwrap_or((error, ""));
    let kind = FailureKind::parse(kind).unwrap_or_else(|| panic!("{line:?} has no known kind"));
    (End::Failed(kind, ""), message.replace("\"\"", "\""))
}

/// The rows of each accepted batch, and how often each row was executed.
fn accounts(mill: &HttpMill) -> anyhow::Result<(Vec<Vec<usize>>, [u32; 4])> {
    let row_of: BTreeMap<String, usize> =
        (0..4).map(|row| (model::digest::sha256_hex(prompt(row).as_bytes()), row)).collect();
    let (mut rows, mut paid) = (BTreeMap::new(), [0; 4]);
    let mut sent = Vec::new();
    for BatchRows { rows: accepted, .. } in mill.ledger()? {
        let mut batch = Vec::new();
        for (id, prompt) in accepted {
            let row = row_of[&prompt.unwrap_or_default()];
            rows.insert(id, row);
            batch.push(row);
        }
        sent.push(batch);
    }
    let billed: BTreeMap<String, BatchRows> =
        mill.billed()?.into_iter().map(|batch| (batch.batch.clone(), batch)).collect();
    for (id, _) in billed.into_values().flat_map(|batch| batch.rows) {
        paid[rows[&id]] += 1;
    }
    Ok((sent, paid))
}

fn compare(case: &Case, seen: &Seen) -> Result<(), String> {
    let differs = |what: &str, expected: String, got: String| Err(format!("{what}: {expected} expected, {got} seen"));
    let kinds = |end: &End| match end {
        End::Failed(kind, _) => End::Failed(*kind, ""),
        other => other.clone(),
    };
    let (mut expected, says) = match &case.ends {
        Ends::All(end) => (vec![kinds(end); 4], end),
        Ends::But(row, end) => ((0..4).map(|at| if at == *row { kinds(end) } else { End::Answered }).collect(), end),
        Ends::Some(answered, end) => {
            ((0..4).map(|at| if at < *answered { End::Answered } else { kinds(end) }).collect(), end)
        }
    };
    let mut ends = seen.ends.clone();
    if matches!(case.ends, Ends::Some(..)) {
        ends.sort();
        expected.sort();
    }
    let also = || {
        format!(
            "{ends:?} ({:?}, {} attempts, sent {:?}, paid {:?})",
            seen.messages, seen.end.attempts, seen.sent, seen.paid
        )
    };
    if ends != expected {
        return differs("rows", format!("{expected:?}"), also());
    }
    if let End::Failed(_, says) = says {
        let failed = seen.ends.iter().zip(&seen.messages).filter(|(end, _)| matches!(end, End::Failed(..)));
        for (_, message) in failed {
            if !message.contains(says) {
                return differs("message", format!("{says:?}"), format!("{message:?}"));
            }
        }
    }
    let right = match &case.sent {
        Sent::Rows(rows) => seen.sent.iter().map(Vec::as_slice).eq(rows.iter().copied()),
        Sent::Counts(counts) => seen.sent.iter().map(Vec::len).eq(counts.iter().copied()),
    };
    if !right {
        return differs("accepted batches", format!("{:?}", case.sent), also());
    }
    let paid = match case.paid {
        Paid::Each(paid) => paid,
        Paid::IfAnswered => std::array::from_fn(|row| u32::from(seen.ends[row] == End::Answered)),
    };
    if paid != seen.paid {
        return differs("paid", format!("{paid:?}"), also());
    }
    Ok(())
}

//! Taking a job up: its `open/` record, its pinned input and layout in `0-job.json`, and its claims on the output and
//! on the place of its failed rows.

use anyhow::Context as _;
use model::facts::SCHEMA;
use model::{
    EndFact, JobFact, JobSpec, OpenJob, OutputClaim, PinnedInput, Refusal, RefusalCode, TableInfo, Team, keys,
};
use runtime::locations::{Location, Pinned, ReadError};
use runtime::{PutOnce, cpu};
use tables::{OpenStep, Opener};

use crate::decide::{Ownership, Written, check_table, ownership, written};
use crate::{Splitter, Stop};

impl Splitter {
    /// Puts `open/<job>`, unless it is there; false if another job's is.
    pub(crate) async fn open(&self, spec: &JobSpec, team: &Team) -> anyhow::Result<bool> {
        let ours = |there: &OpenJob| there.team == *team && there.spec.digest() == spec.digest();
        // Looked for first: a put that times out may land behind the job's end, and the job would look open again.
        if let Some(there) = self.context.store.get_json::<OpenJob>(&keys::open(&spec.id)).await? {
            return Ok(ours(&there));
        }
        let clock = &self.context.clock;
        let open = OpenJob {
            schema: SCHEMA,
            nonce: clock.nonce(),
            team: team.clone(),
            spec: spec.clone(),
            opened_at: clock.now(),
        };
        Ok(match self.context.store.put_once(&keys::open(&spec.id), &open).await? {
            PutOnce::Won => true,
            PutOnce::Lost(theirs) => ours(&theirs),
        })
    }

    /// The job fact: the one that is there, or one made by looking at the input. Then the checks that need the table,
    /// and the claims on what the job writes. Whatever is wrong is a refusal; the job fact is put all the same.
    pub(crate) async fn take_up(&self, spec: &JobSpec, team: &Team) -> Result<JobFact, Stop> {
        let key = keys::job(&spec.id);
        let found = self.context.store.get_json::<JobFact>(&key).await.map_err(anyhow::Error::from)?;
        let fact = match found {
            Some(fact) => fact,
            None => self.put_job_fact(spec, team).await?,
        };
        check_table(spec, pinned(&fact)?.1)?;
        self.own_outputs(&fact).await?;
        Ok(fact)
    }

    async fn put_job_fact(&self, spec: &JobSpec, team: &Team) -> Result<JobFact, Stop> {
        let (input, table, refusal) = match self.inspect(spec, team).await {
            Ok((input, table)) => (Some(input), Some(table), None),
            Err(Stop::Refused(refusal)) => (None, None, Some(refusal)),
            Err(failed) => return Err(failed),
        };
        let clock = &self.context.clock;
        let fact = JobFact {
            schema: SCHEMA,
            nonce: clock.nonce(),
            team: team.clone(),
            spec: spec.clone(),
            accepted_at: clock.now(),
            input,
            table,
            refusal,
        };
        match self.context.store.put_once(&keys::job(&spec.id), &fact).await.map_err(anyhow::Error::from)? {
            PutOnce::Won => Ok(fact),
            PutOnce::Lost(theirs) if theirs.spec.digest() == spec.digest() && theirs.team == *team => Ok(theirs),
            PutOnce::Lost(_) => Err(Stop::Failed(anyhow::anyhow!("job {} was taken up with another spec", spec.id))),
        }
    }

    /// Everything that can be checked of a spec and its input before a row is read.
    async fn inspect(&self, spec: &JobSpec, team: &Team) -> Result<(PinnedInput, TableInfo), Stop> {
        spec.validate()?;
        self.providers.of(spec)?;
        for (uri, _) in written(spec) {
            self.context.locations.resolve(&uri, team)?;
        }
        let location = self.context.locations.resolve(&spec.input.uri, team)?;
        let missing = || {
            let message = format!("{}: there is nothing there: check the name and the credentials", spec.input.uri);
            Stop::from(Refusal::new(RefusalCode::InputMissing, message))
        };
        let pinned = location.head().await.map_err(|e| read_stop(spec, e))?.ok_or_else(missing)?;
        let table = self.layout(spec, &location, &pinned).await?;
        Ok((PinnedInput { etag: pinned.etag, bytes: pinned.bytes }, table))
    }

    async fn layout(&self, spec: &JobSpec, location: &Location, pinned: &Pinned) -> Result<TableInfo, Stop> {
        let caps = self.config.caps();
        let mut opener = Opener::new(&spec.input.uri, pinned.bytes, spec.input.format, spec.input.delimiter, caps);
        loop {
            match cpu::run_blocking_section(|| opener.step()).map_err(|e| table_stop(spec, e))? {
                OpenStep::Done(table) => return Ok(table),
                OpenStep::Need(ranges) => {
                    let pieces = location.read(&ranges, &pinned.etag).await.map_err(|e| read_stop(spec, e))?;
                    ranges.into_iter().zip(pieces).for_each(|(range, bytes)| opener.push(range, bytes));
                }
            }
        }
    }

    /// Makes the output and the place of its failed rows this job's, or refuses. Nothing is claimed before both are seen to
    /// be free: a job that is refused for the one should leave no mark on the other.
    async fn own_outputs(&self, fact: &JobFact) -> Result<(), Stop> {
        let files = written(&fact.spec);
        for file in &files {
            self.whose(fact, file).await?;
        }
        for file in &files {
            while let Some(n) = self.whose(fact, file).await? {
                let (job, nonce, uri) = (fact.spec.id.clone(), self.context.clock.nonce(), file.0.clone());
                let key = keys::output_claim(&uri, n);
                let claim = OutputClaim { schema: SCHEMA, nonce, job, uri };
                // Won or lost, the next look says whose it is.
                self.context.store.put_once(&key, &claim).await.map_err(anyhow::Error::from)?;
                faults::crash_point!(SplitterOwned);
            }
        }
        Ok(())
    }

    /// The number of the claim that would make a file this job's; none if it is already. A refusal if it can't be.
    async fn whose(&self, fact: &JobFact, file: &(String, Written)) -> Result<Option<u32>, Stop> {
        let location = self.context.locations.resolve(&file.0, &fact.team)?;
        let latest = self.latest_claim(&file.0).await?;
        let exists = location.exists().await.map_err(|e| read_stop(&fact.spec, e))?;
        let seen = latest.as_ref().map(|(n, claim, ended)| (*n, claim, *ended));
        match ownership(&fact.spec.id, &fact.spec, file, seen, exists) {
            Ownership::Ours => Ok(None),
            Ownership::Refuse(refusal) => Err(refusal.into()),
            Ownership::Claim(n) => Ok(Some(n)),
        }
    }

    /// The latest claim on an output, and whether its job has ended.
    async fn latest_claim(&self, uri: &str) -> anyhow::Result<Option<(u32, OutputClaim, bool)>> {
        let store = &self.context.store;
        let listed = store.list(&keys::output_claims(uri)).await?;
        let numbers = listed.iter().filter_map(|listed| match keys::parse(&listed.key) {
            Some(keys::Key::OutputClaim(_, n)) => Some(n),
            _ => None,
        });
        let Some(n) = numbers.max() else { return Ok(None) };
        let claim: OutputClaim =
            store.get_json(&keys::output_claim(uri, n)).await?.context("a listed claim is gone")?;
        let ended = store.get_json::<EndFact>(&keys::end(&claim.job)).await?.is_some();
        Ok(Some((n, claim, ended)))
    }
}

/// The input that a job fact pins and its layout, or the refusal that it holds instead.
pub(crate) fn pinned(fact: &JobFact) -> Result<(&PinnedInput, &TableInfo), Refusal> {
    if let Some(refusal) = &fact.refusal {
        return Err(refusal.clone());
    }
    let gone = || Refusal::new(RefusalCode::InputMissing, "the input could not be opened when the job was taken up");
    fact.input.as_ref().zip(fact.table.as_ref()).ok_or_else(gone)
}

/// A failed read of the input: a changed or vanished input refuses the job, the rest passes.
pub(crate) fn read_stop(spec: &JobSpec, error: ReadError) -> Stop {
    let uri = &spec.input.uri;
    match error {
        ReadError::Changed { .. } => {
            let message = format!("{uri} changed while it was read: submit the job again under a new id");
            Refusal::new(RefusalCode::InputChanged, message).into()
        }
        ReadError::Missing { .. } => Refusal::new(RefusalCode::InputMissing, format!("{uri} is gone")).into(),
        error @ ReadError::Denied { .. } => {
            let message = format!("{error}: check the credentials and the bucket's policy");
            Refusal::new(RefusalCode::LocationRefused, message).into()
        }
        error @ ReadError::Transient { .. } => Stop::Failed(error.into()),
    }
}

/// A failure of the decoder: what it says of the input refuses the job, with the input's name before it.
pub(crate) fn table_stop(spec: &JobSpec, error: tables::Error) -> Stop {
    match error.refusal() {
        Some(refusal) => Refusal::new(refusal.code, format!("{}: {}", spec.input.uri, refusal.message)).into(),
        None => Stop::Failed(error.into()),
    }
}

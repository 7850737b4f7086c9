//! One state of the submission model: the log, the provider, the two dispatchers. Small enough to be copied, and packed
//! into four words to be remembered.

/// The most files, batches and log entries that a state has room for. A world's bounds are lower: a run that goes on
/// without faults past them must still fit.
pub(crate) const FILES: usize = 6;
pub(crate) const BATCHES: usize = 8;
pub(crate) const ENTRIES: usize = 12;

/// A cursor that has not looked at any batch yet.
pub(crate) const BEGIN: u8 = 15;

const ENTRY_BITS: usize = 5;
/// The lowest bit of each entry of a log.
const LOWEST: u64 = 0x0084_2108_4210_8421;

/// A log entry. A claim says whose it is: no living process's, or one of the two dispatchers'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Claim(Owner),
    File(u8),
    Submitted(u8),
    Rejected(Refusal),
    Unsent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Dead = 1,
    First = 2,
    Second = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 429: may pass.
    Limit = 4,
    /// 400: final.
    Invalid = 5,
    /// 404: the file is not there.
    NoFile = 6,
}

pub(crate) const REFUSALS: [Refusal; 3] = [Refusal::Limit, Refusal::Invalid, Refusal::NoFile];

impl Refusal {
    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            4 => Self::Limit,
            5 => Self::Invalid,
            6 => Self::NoFile,
            _ => unreachable!("no refusal has the code {code}"),
        }
    }
}

impl Entry {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Claim(owner) => owner as u8,
            Self::Rejected(refusal) => refusal as u8,
            Self::Unsent => 7,
            Self::File(file) => 8 + file,
            Self::Submitted(batch) => 16 + batch,
        }
    }

    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Claim(Owner::Dead),
            2 => Self::Claim(Owner::First),
            3 => Self::Claim(Owner::Second),
            4..=6 => Self::Rejected(Refusal::from_code(code)),
            7 => Self::Unsent,
            8..16 => Self::File(code - 8),
            16..32 => Self::Submitted(code - 16),
            _ => unreachable!("no entry has the code {code}"),
        }
    }
}

/// An uploaded file at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct File {
    pub(crate) life: Life,
    /// Creates for it that were sent, have not landed, and whose sender waits no more.
    pub(crate) flying: u8,
    /// A deletion was sent, has not landed, and its sender waits no more.
    pub(crate) late_delete: bool,
    /// The provider's time of the upload: how many batches there were.
    pub(crate) since: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Life {
    #[default]
    Absent,
    There,
    Deleted,
}

/// A batch at the provider. Its place in the list is its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The file that it was made of; none for another job's.
    pub(crate) file: Option<u8>,
    /// Accepted for a deleted file: it will fail without rows, and is not billed.
    pub(crate) doomed: bool,
    /// Accepted, and not in the list yet.
    pub(crate) hidden: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// About to read the log.
    Idle,
    PutClaim,
    /// Reading the list, before the deletion.
    FirstList,
    Delete,
    /// Reading the list, after the deletion.
    SecondList,
    Upload,
    PutFile,
    /// About to send the create.
    Create,
    /// The create is on its way, and its sender waits.
    Sent,
    PutSubmitted,
    PutRejected,
    PutUnsent,
}

pub(crate) const STAGES: [Stage; 12] = [
    Stage::Idle,
    Stage::PutClaim,
    Stage::FirstList,
    Stage::Delete,
    Stage::SecondList,
    Stage::Upload,
    Stage::PutFile,
    Stage::Create,
    Stage::Sent,
    Stage::PutSubmitted,
    Stage::PutRejected,
    Stage::PutUnsent,
];

/// A dispatcher's program counter and what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatcher {
    pub(crate) stage: Stage,
    /// The file that it fences, or its own.
    pub(crate) file: Option<u8>,
    /// Whether it saw a reason not to send.
    pub(crate) stop: bool,
    /// How many entries the log has beyond those that it knows: its next put wins at 0, and loses at anything else.
    pub(crate) behind: u8,
    /// The list's cursor, a batch, or a refusal's code, by stage.
    pub(crate) arg: u8,
}

impl Dispatcher {
    pub(crate) const IDLE: Self = Self { stage: Stage::Idle, file: None, stop: false, behind: 0, arg: 0 };

    pub(crate) fn at(self, stage: Stage) -> Self {
        Self { stage, arg: 0, ..self }
    }

    fn pack(self) -> u64 {
        let file = self.file.map_or(0, |file| u64::from(file) + 1);
        self.stage as u64
            | file << 4
            | u64::from(self.stop) << 8
            | u64::from(self.behind) << 9
            | u64::from(self.arg) << 12
    }

    fn unpack(bits: u64) -> Self {
        Self {
            stage: STAGES[(bits & 15) as usize],
            file: (bits >> 4 & 15).checked_sub(1).map(|file| file as u8),
            stop: bits >> 8 & 1 == 1,
            behind: (bits >> 9 & 7) as u8,
            arg: (bits >> 12 & 15) as u8,
        }
    }
}

/// The whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// Entry codes, five bits each, the first lowest.
    pub(crate) log: u64,
    /// Puts that were sent, have not landed, and whose sender waits no more; by entry code. Each is for the log's next
    /// number: those for earlier ones have lost.
    pub(crate) late_puts: u32,
    pub(crate) files: [File; FILES],
    pub(crate) batches: [Option<Batch>; BATCHES],
    pub(crate) dispatchers: [Dispatcher; 2],
    /// How many more faults may happen.
    pub(crate) faults: u8,
}

pub(crate) type Packed = [u64; 4];

impl State {
    pub(crate) fn first(faults: u8) -> Self {
        Self {
            log: 0,
            late_puts: 0,
            files: [File::default(); FILES],
            batches: [None; BATCHES],
            dispatchers: [Dispatcher::IDLE; 2],
            faults,
        }
    }

    pub(crate) fn log_len(&self) -> usize {
        (64 - self.log.leading_zeros() as usize).div_ceil(ENTRY_BITS)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + use<> {
        let log = self.log;
        (0..self.log_len()).map(move |at| Entry::from_code((log >> (at * ENTRY_BITS) & 31) as u8))
    }

    /// The log's last entry, if it ends the log.
    pub(crate) fn end(&self) -> Option<Entry> {
        let last = self.log_len().checked_sub(1)?;
        match (self.log >> (last * ENTRY_BITS) & 31) as u8 {
            code @ (7 | 16..) => Some(Entry::from_code(code)),
            _ => None,
        }
    }

    /// An entry lands at the log's next number. All that was sent for that number has lost. Whose the claims before it
    /// were matters no more (the world asks the real code, for each log).
    pub(crate) fn land(&mut self, entry: Entry, furthest_behind: u8) {
        self.disown_claims(Owner::First);
        self.disown_claims(Owner::Second);
        self.log |= u64::from(entry.code()) << (self.log_len() * ENTRY_BITS);
        self.late_puts = 0;
        for dispatcher in &mut self.dispatchers {
            if dispatcher.stage != Stage::Idle {
                dispatcher.behind = (dispatcher.behind + 1).min(furthest_behind);
            }
        }
    }

    pub(crate) fn batch_count(&self) -> u8 {
        self.batches.iter().take_while(|batch| batch.is_some()).count() as u8
    }

    pub(crate) fn accept(&mut self, batch: Batch) -> u8 {
        let place = self.batch_count();
        self.batches[usize::from(place)] = Some(batch);
        place
    }

    /// The batches that are paid for.
    pub(crate) fn billed(&self) -> impl Iterator<Item = u8> {
        let billed = |batch: &Option<Batch>| batch.is_some_and(|batch| batch.file.is_some() && !batch.doomed);
        (0..).zip(&self.batches).filter(move |(_, batch)| billed(batch)).map(|(place, _)| place)
    }

    /// A process ends and comes back with a new epoch: its claims are nobody's.
    pub(crate) fn disown(&mut self, owner: Owner) {
        self.disown_claims(owner);
        let bit = 1 << owner as u8;
        if self.late_puts & bit != 0 {
            self.late_puts = self.late_puts & !bit | 1 << Owner::Dead as u8;
        }
    }

    fn disown_claims(&mut self, owner: Owner) {
        let claims = claims_of_the_living(self.log);
        let of_second = claims & self.log;
        match owner {
            Owner::First => self.log ^= (claims ^ of_second) * 3,
            _ => self.log ^= of_second << 1,
        }
    }

    fn mirrored(&self, one_epoch: bool) -> Self {
        let mut other = *self;
        other.dispatchers.swap(0, 1);
        if !one_epoch {
            other.log ^= claims_of_the_living(self.log);
            other.late_puts = self.late_puts & !0b1100 | (self.late_puts & 4) << 1 | (self.late_puts & 8) >> 1;
        }
        other
    }

    /// The state in four words, and whether they are its mirror image's: the dispatchers are alike, so the two are one.
    pub(crate) fn canonical(&self, one_epoch: bool) -> (Packed, bool) {
        let (own, mirrored) = (self.pack(), self.mirrored(one_epoch).pack());
        if own <= mirrored { (own, false) } else { (mirrored, true) }
    }

    pub(crate) fn pack(&self) -> Packed {
        let [first, second] = self.dispatchers.map(Dispatcher::pack);
        let mut words = [self.log, u64::from(self.late_puts) | u64::from(self.faults) << 32, 0, 0];
        words[1] |= first << 40;
        words[2] = second << 48;
        for (at, file) in self.files.iter().enumerate() {
            let bits = file.life as u64
                | u64::from(file.flying) << 2
                | u64::from(file.late_delete) << 4
                | u64::from(file.since) << 5;
            words[2] |= bits << (at * 8);
        }
        for (at, batch) in self.batches.iter().enumerate() {
            let Some(batch) = batch else { break };
            let file = batch.file.map_or(1, |file| u64::from(file) + 2);
            words[3] |= (file | u64::from(batch.doomed) << 4 | u64::from(batch.hidden) << 5) << (at * 6);
        }
        words
    }

    pub(crate) fn unpack(words: &Packed) -> Self {
        let mut state = Self::first((words[1] >> 32) as u8);
        (state.log, state.late_puts) = (words[0], words[1] as u32);
        state.dispatchers = [Dispatcher::unpack(words[1] >> 40), Dispatcher::unpack(words[2] >> 48)];
        for (at, file) in state.files.iter_mut().enumerate() {
            let bits = words[2] >> (at * 8);
            let life = [Life::Absent, Life::There, Life::Deleted][(bits & 3) as usize];
            let (flying, late_delete, since) = ((bits >> 2 & 3) as u8, bits >> 4 & 1 == 1, (bits >> 5 & 7) as u8);
            *file = File { life, flying, late_delete, since };
        }
        for (at, batch) in state.batches.iter_mut().enumerate() {
            let bits = words[3] >> (at * 6);
            let file = match bits & 15 {
                0 => break,
                1 => None,
                file => Some(file as u8 - 2),
            };
            *batch = Some(Batch { file, doomed: bits >> 4 & 1 == 1, hidden: bits >> 5 & 1 == 1 });
        }
        state
    }
}

/// The lowest bits of the log's claims whose owner lives (codes 2 and 3).
fn claims_of_the_living(log: u64) -> u64 {
    !(log >> 4) & !(log >> 3) & !(log >> 2) & log >> 1 & LOWEST
}

//! Topics, groups and members, behind the lock of the memory bus.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::assign;
use super::log::{Log, Topic};
use crate::ownership::{Ownership, Position};
use crate::window::Window;
use crate::{Delivery, Outgoing, Placed, Polled, Record, Standing, TopicOutcome};

/// The partitions of a topic that nobody has created.
const DEFAULT_PARTITIONS: usize = 4;

type Partition = (String, i32);

#[derive(Debug, Default)]
pub(super) struct State {
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, Group>,
    last_member: u64,
    last_connection: u64,
}

#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<u64, Member>,
    /// Offset and metadata by partition.
    committed: BTreeMap<Partition, (i64, String)>,
    /// Every topic that a member has ever subscribed to.
    topics: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Member {
    topics: BTreeSet<String>,
    /// The handle that it came by; 0 for one without a line.
    connection: u64,
    /// Its session has ended, and it has not called since.
    away: bool,
    ownership: Ownership,
    /// The offset to read next, of each partition that it owns.
    positions: BTreeMap<Partition, i64>,
    /// Changes of ownership to tell, before any further record.
    notices: VecDeque<Polled>,
    paused: BTreeSet<String>,
    /// The partition that was read last: the next one in order has its turn.
    last_read: Option<Partition>,
}

impl State {
    fn topic(&mut self, name: &str) -> &mut Topic {
        self.topics.entry(name.to_owned()).or_insert_with(|| Topic::new(DEFAULT_PARTITIONS))
    }

    pub(super) fn create(&mut self, name: &str, partitions: usize) -> TopicOutcome {
        if self.topics.contains_key(name) {
            return TopicOutcome::AlreadyExists;
        }
        self.topics.insert(name.to_owned(), Topic::new(partitions));
        TopicOutcome::Created
    }

    pub(super) fn append(&mut self, out: Outgoing) -> Placed {
        let name = out.topic.clone();
        self.topic(&name).append(out)
    }

    pub(super) fn join(&mut self, group: &str, topics: &[String], connection: u64) -> u64 {
        for topic in topics {
            self.topic(topic);
        }
        self.last_member += 1;
        let id = self.last_member;
        let group = self.groups.entry(group.to_owned()).or_default();
        group.topics.extend(topics.iter().cloned());
        let topics = topics.iter().cloned().collect();
        group.members.insert(id, Member { topics, connection, ..Member::default() });
        group.rebalance(&self.topics);
        id
    }

    /// Takes a member out of its group as it is: what it has not committed is delivered again.
    pub(super) fn leave(&mut self, group: &str, member: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.remove(&member);
            group.rebalance(&self.topics);
        }
    }

    pub(super) fn next_connection(&mut self) -> u64 {
        self.last_connection += 1;
        self.last_connection
    }

    pub(super) fn end_session(&mut self, connection: u64) {
        for group in self.groups.values_mut() {
            let of_it = group.members.values_mut().filter(|member| member.connection == connection);
            of_it.for_each(|member| member.away = true);
            group.rebalance(&self.topics);
        }
    }

    pub(super) fn lose_records(&mut self) {
        for log in self.topics.values_mut().flat_map(|topic| topic.partitions.iter_mut()) {
            log.trim(log.end());
        }
    }

    pub(super) fn poll(&mut self, group: &str, member: u64) -> Option<Polled> {
        let group = self.groups.get_mut(group)?;
        if let Some(back) = group.members.get_mut(&member).filter(|member| member.away) {
            back.away = false;
            group.rebalance(&self.topics);
        }
        let member = group.members.get_mut(&member)?;
        member.notices.pop_front().or_else(|| member.read(&self.topics))
    }

    fn member(&mut self, group: &str, member: u64) -> Option<&mut Member> {
        self.groups.get_mut(group)?.members.get_mut(&member)
    }

    pub(super) fn finish(&mut self, group: &str, member: u64, delivery: &Delivery) -> bool {
        self.member(group, member).is_some_and(|member| member.ownership.finish(delivery))
    }

    pub(super) fn pause(&mut self, group: &str, member: u64, topic: &str) {
        if let Some(member) = self.member(group, member) {
            member.paused.insert(topic.to_owned());
        }
    }

    pub(super) fn resume(&mut self, group: &str, member: u64, topic: &str) {
        if let Some(member) = self.member(group, member) {
            member.paused.remove(topic);
        }
    }

    pub(super) fn commit(&mut self, group: &str, member: u64) {
        let Some(group) = self.groups.get_mut(group) else { return };
        let Some(member) = group.members.get_mut(&member) else { return };
        let changed = member.ownership.take_changed();
        let partitions: Vec<Partition> =
            changed.iter().map(|position| (position.topic.clone(), position.partition)).collect();
        group.store(changed);
        self.trim(&partitions);
    }

    /// Drops the records that every group of their topic has committed past.
    fn trim(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            let (name, number) = partition;
            let groups = self.groups.values().filter(|group| group.topics.contains(name));
            let passed = groups.map(|group| group.committed.get(partition).map_or(0, |(offset, _)| *offset)).min();
            let log = self.topics.get_mut(name).and_then(|topic| topic.partitions.get_mut(*number as usize));
            if let (Some(passed), Some(log)) = (passed, log) {
                log.trim(passed);
            }
        }
    }

    pub(super) fn standing(&self, group: &str, topic: &str) -> Vec<Standing> {
        let committed = self.groups.get(group).map(|group| &group.committed);
        let logs = self.topics.get(topic).into_iter().flat_map(|topic| topic.partitions.iter().enumerate());
        let standing = |(number, log): (usize, &Log)| {
            let commit = committed.and_then(|committed| committed.get(&(topic.to_owned(), number as i32)));
            let commit = commit.map(|(offset, metadata)| (*offset, metadata.as_str()));
            Standing::new(number as i32, log.low(), log.end(), commit)
        };
        logs.map(standing).collect()
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    pub(super) fn read(&self, topic: &str, partition: i32, offsets: Range<i64>, most: usize) -> Vec<Record> {
        let log = usize::try_from(partition).ok().and_then(|index| self.topics.get(topic)?.partitions.get(index));
        let Some(log) = log else { return Vec::new() };
        let kept = offsets.start.max(log.low())..offsets.end.min(log.end());
        kept.filter_map(|offset| log.get(offset)).take(most).cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn kept(&self, topic: &str) -> i64 {
        self.topics[topic].partitions.iter().map(|log| log.end() - log.low()).sum()
    }
}

impl Group {
    fn store(&mut self, positions: impl IntoIterator<Item = Position>) {
        for position in positions {
            self.committed.insert((position.topic, position.partition), (position.offset, position.metadata));
        }
    }

    /// Spreads the partitions over the members. Who loses one has what it finished committed, and learns of it.
    fn rebalance(&mut self, topics: &BTreeMap<String, Topic>) {
        let mut gained: BTreeMap<u64, Vec<Partition>> = BTreeMap::new();
        let mut lost: BTreeMap<u64, Vec<Partition>> = BTreeMap::new();
        for name in &self.topics {
            let Some(topic) = topics.get(name) else { continue };
            let subscribed: Vec<u64> =
                self.members.iter().filter(|(_, member)| member.takes(name)).map(|(id, _)| *id).collect();
            let now = |partition: usize| self.owner(name, partition as i32);
            let owners = assign::owners(topic.partitions.len(), &subscribed, now);
            for (number, owner) in owners.into_iter().enumerate() {
                let before = now(number);
                if before != owner {
                    let partition = (name.clone(), number as i32);
                    before.into_iter().for_each(|id| lost.entry(id).or_default().push(partition.clone()));
                    owner.into_iter().for_each(|id| gained.entry(id).or_default().push(partition.clone()));
                }
            }
        }
        for (id, partitions) in lost {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let finished = member.give_up(partitions);
            // Nobody takes a commit of a member whose session has ended.
            if !member.away {
                self.store(finished);
            }
        }
        for (id, partitions) in gained {
            if let Some(member) = self.members.get_mut(&id) {
                member.take_over(partitions, &self.committed);
            }
        }
    }

    fn owner(&self, topic: &str, partition: i32) -> Option<u64> {
        let mut owners =
            self.members.iter().filter(|(_, member)| member.ownership.generation(topic, partition).is_some());
        owners.next().map(|(id, _)| *id)
    }
}

impl Member {
    fn takes(&self, topic: &str) -> bool {
        !self.away && self.topics.contains(topic)
    }

    fn give_up(&mut self, partitions: Vec<Partition>) -> Vec<Position> {
        let mut finished = Vec::new();
        for partition in &partitions {
            finished.extend(self.ownership.revoke(&partition.0, partition.1));
            self.positions.remove(partition);
        }
        self.notices.push_back(Polled::Revoked(partitions));
        finished
    }

    fn take_over(&mut self, partitions: Vec<Partition>, committed: &BTreeMap<Partition, (i64, String)>) {
        for partition in &partitions {
            let (offset, metadata) = match committed.get(partition) {
                Some((offset, metadata)) => (*offset, metadata.as_str()),
                None => (0, ""),
            };
            self.ownership.assign(&partition.0, partition.1, Window::starting_at(offset, metadata));
            self.positions.insert(partition.clone(), offset);
        }
        self.notices.push_back(Polled::Assigned(partitions));
    }

    /// The next record of the partitions, which take turns.
    fn read(&mut self, topics: &BTreeMap<String, Topic>) -> Option<Polled> {
        let last = self.last_read.as_ref();
        let after = self.positions.keys().filter(|partition| Some(*partition) > last);
        let turns: Vec<Partition> =
            after.chain(self.positions.keys().filter(|partition| Some(*partition) <= last)).cloned().collect();
        for partition in turns.into_iter().filter(|partition| !self.paused.contains(&partition.0)) {
            let log = topics.get(&partition.0)?.partitions.get(partition.1 as usize)?;
            let generation = self.ownership.generation(&partition.0, partition.1)?;
            let position = self.positions.get_mut(&partition)?;
            *position = log.low().max(*position);
            while let Some(record) = log.get(*position) {
                *position += 1;
                if let Some(delivery) = self.ownership.deliver(record, generation) {
                    self.last_read = Some(partition);
                    return Some(Polled::Record(record.clone(), delivery));
                }
            }
        }
        None
    }
}

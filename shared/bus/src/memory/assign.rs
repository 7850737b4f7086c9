//! Who gets which partition of a topic: evenly, and moving as few as possible.

/// The owners of partitions `0..partitions` among `members` (in the order in which they joined), given who owns them
/// now. Without members there are no owners.
///
/// Each member gets `partitions / members`, the first ones one more. A member keeps what it owns up to its share; the
/// rest goes to those below theirs, in order.
pub(super) fn owners(partitions: usize, members: &[u64], now: impl Fn(usize) -> Option<u64>) -> Vec<Option<u64>> {
    if members.is_empty() {
        return vec![None; partitions];
    }
    let (base, extra) = (partitions / members.len(), partitions % members.len());
    let mut room: Vec<usize> = (0..members.len()).map(|index| base + usize::from(index < extra)).collect();
    let mut owners = vec![None; partitions];
    for (partition, owner) in owners.iter_mut().enumerate() {
        let index = now(partition).and_then(|owner| members.iter().position(|member| *member == owner));
        if let Some(index) = index.filter(|index| room[*index] > 0) {
            room[index] -= 1;
            *owner = Some(members[index]);
        }
    }
    for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
        if let Some(index) = room.iter().position(|room| *room > 0) {
            room[index] -= 1;
            *owner = Some(members[index]);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_what_fits_stays() {
        let first = owners(5, &[1], |_| None);
        assert_eq!(first, vec![Some(1); 5]);
        let second = owners(5, &[1, 2], |partition| first[partition]);
        assert_eq!(second, [Some(1), Some(1), Some(1), Some(2), Some(2)]);
        let third = owners(5, &[1, 2, 3], |partition| second[partition]);
        assert_eq!(third, [Some(1), Some(1), Some(3), Some(2), Some(2)]);
        let left = owners(5, &[2, 3], |partition| third[partition]);
        assert_eq!(left, [Some(2), Some(3), Some(3), Some(2), Some(2)]);
    }

    #[test]
    fn more_members_than_partitions_leaves_some_without() {
        assert_eq!(owners(1, &[4, 9], |_| Some(9)), [Some(4)]);
        assert_eq!(owners(2, &[], |_| Some(9)), [None, None]);
    }
}

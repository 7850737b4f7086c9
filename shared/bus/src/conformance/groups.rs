//! Groups: rebalances, pauses, leaving.

use std::collections::BTreeSet;

use super::{Fixture, Member, offsets, text, within};
use crate::Polled;

/// Each group gets every record.
pub async fn groups_do_not_share_records(fixture: &Fixture) {
    let topic = fixture.topic("shared", 1).await;
    fixture.send_numbers(&topic, 0..3).await;
    let mut first = fixture.join(&fixture.group("shared-1"), &[&topic]);
    let mut second = fixture.join(&fixture.group("shared-2"), &[&topic]);
    let (first, second) = tokio::join!(first.records(3), second.records(3));
    assert_eq!((offsets(&first), offsets(&second)), (vec![0, 1, 2], vec![0, 1, 2]));
}

/// A paused topic delivers nothing, others go on; resumed, it goes on where it stopped.
pub async fn pause_holds_back_one_topic(fixture: &Fixture) {
    let (topic, other) = (fixture.topic("paused", 1).await, fixture.topic("unpaused", 1).await);
    let mut member = fixture.join(&fixture.group("paused"), &[&topic, &other]);
    fixture.send_numbers(&topic, 0..5).await;
    let before = member.records(2).await;
    member.consumer.pause(&topic).unwrap();
    fixture.send_numbers(&other, 0..3).await;
    for (record, _) in member.records(3).await {
        assert_eq!(record.topic, other);
    }
    fixture.send_numbers(&topic, 5..7).await;
    fixture.send_numbers(&other, 3..4).await;
    let (marker, _) = member.record().await;
    assert_eq!((&marker.topic, text(&marker).as_str()), (&other, "3"));
    member.consumer.resume(&topic).unwrap();
    let after = member.records(5).await;
    assert!(after.iter().all(|(record, _)| record.topic == topic));
    let all: Vec<i64> = offsets(&before).into_iter().chain(offsets(&after)).collect();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
}

/// Polls both, until the second owns so many partitions and the two own so many together.
async fn settle(first: &mut Member, second: &mut Member, in_second: usize, in_both: usize) {
    within("a rebalance", async {
        while second.owned.len() != in_second || first.owned.len() + second.owned.len() != in_both {
            tokio::select! {
                polled = first.polled() => drop(polled),
                polled = second.polled() => drop(polled),
            }
        }
    })
    .await;
}

/// A pause holds for partitions that go away and come back, and ends for them, too.
pub async fn a_paused_topic_stays_paused_across_a_rebalance(fixture: &Fixture) {
    let (topic, other) = (fixture.topic("still", 2).await, fixture.topic("moving", 2).await);
    let group = fixture.group("still");
    let mut first = fixture.join(&group, &[&topic, &other]);
    first.own(4).await;
    first.consumer.pause(&topic).unwrap();
    let mut second = fixture.join(&group, &[&topic, &other]);
    settle(&mut first, &mut second, 2, 4).await;
    second.close().await;
    first.own(4).await;
    fixture.send_numbers(&topic, 0..4).await;
    fixture.send_numbers(&other, 0..4).await;
    for (record, _) in first.records(4).await {
        assert_eq!(record.topic, other);
    }
    first.consumer.resume(&topic).unwrap();
    let seen: BTreeSet<String> = first.records(4).await.iter().map(|(record, _)| text(record)).collect();
    assert_eq!(seen.len(), 4);

    // Resumed while it was away, it comes back resumed.
    first.consumer.pause(&topic).unwrap();
    let mut second = fixture.join(&group, &[&topic, &other]);
    settle(&mut first, &mut second, 2, 4).await;
    first.consumer.resume(&topic).unwrap();
    second.close().await;
    within("all partitions", async {
        while first.owned.len() != 4 {
            first.polled().await;
        }
    })
    .await;
    fixture.send_numbers(&topic, 100..104).await;
    let mut wanted: BTreeSet<String> = (100..104).map(|number| number.to_string()).collect();
    while !wanted.is_empty() {
        wanted.remove(&text(&first.record().await.0));
    }
}

/// Takes one event of either member, and finishes its record.
async fn work(first: &mut Member, second: &mut Member, seen: &mut BTreeSet<String>) {
    let (polled, member) = tokio::select! {
        polled = first.polled() => (polled, first),
        polled = second.polled() => (polled, second),
    };
    if let Polled::Record(record, delivery) = polled {
        seen.insert(text(&record));
        assert!(member.consumer.finish(&delivery));
    }
}

/// Two consumers share the partitions, and a rebalance under way loses nothing.
pub async fn a_rebalance_loses_nothing(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("rebalance", 4).await, fixture.group("rebalance"));
    let mut first = fixture.join(&group, &[&topic]);
    first.own(4).await;
    for number in 0..40 {
        fixture.send(&topic, Some(&format!("key-{number}")), &number.to_string()).await;
    }
    let mut seen = BTreeSet::new();
    for (record, delivery) in first.records(10).await {
        seen.insert(text(&record));
        assert!(first.consumer.finish(&delivery));
    }
    let mut second = fixture.join(&group, &[&topic]);
    within("both to own two partitions", async {
        while first.owned.len() != 2 || second.owned.len() != 2 {
            work(&mut first, &mut second, &mut seen).await;
        }
    })
    .await;
    assert!(first.owned.iter().all(|partition| !second.owned.contains(partition)));
    for number in 40..80 {
        fixture.send(&topic, Some(&format!("key-{number}")), &number.to_string()).await;
    }
    within("all records", async {
        while seen.len() < 80 {
            work(&mut first, &mut second, &mut seen).await;
        }
    })
    .await;
    first.commit().await;
    second.commit().await;
    assert_eq!(fixture.lag(&group, &topic).await, (0, 0));
    first.close().await;
    second.own(4).await;
}

/// A record whose partition was revoked since can't be finished, not even when the partition has come back.
pub async fn a_revoked_record_cannot_be_finished(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("revoked", 2).await, fixture.group("revoked"));
    let mut first = fixture.join(&group, &[&topic]);
    first.own(2).await;
    let mut sent = [0, 0];
    let mut key = 0;
    while sent != [1, 1] {
        let partition = crate::murmur2::partition_of(format!("{key}").as_bytes(), 2) as usize;
        if sent[partition] == 0 {
            fixture.send(&topic, Some(&key.to_string()), "").await;
            sent[partition] = 1;
        }
        key += 1;
    }
    let old = first.records(2).await;
    let mut second = fixture.join(&group, &[&topic]);
    // With an eager assignment the first consumer's own partition comes again as well.
    let moved = within("the move", async {
        while first.owned.len() != 1 || second.owned.len() != 1 {
            tokio::select! {
                polled = first.polled() => drop(polled),
                polled = second.polled(), if second.owned.is_empty() => drop(polled),
            }
        }
        second.owned[0].1
    })
    .await;
    let (_, stale) = old.iter().find(|(record, _)| record.partition == moved).unwrap();
    assert!(!first.consumer.finish(stale), "the partition is not ours");
    let (record, _) = second.record().await;
    assert_eq!(record.partition, moved);
    drop(second);
    within("its return", async {
        while first.owned.len() != 2 {
            first.polled().await;
        }
    })
    .await;
    assert!(!first.consumer.finish(stale), "the partition is ours again, the token is not");
    first.commit().await;
    assert_eq!(fixture.lag(&group, &topic).await, (2, 2));
    let again = within("the record", async {
        loop {
            let (record, delivery) = first.record().await;
            if record.partition == moved {
                return delivery;
            }
        }
    })
    .await;
    assert!(!first.consumer.finish(stale), "the record was delivered again, under another token");
    first.commit().await;
    assert_eq!(fixture.lag(&group, &topic).await, (2, 2));
    assert!(first.consumer.finish(&again));
    first.commit().await;
    assert_eq!(fixture.lag(&group, &topic).await, (1, 1));
}

/// Closing commits what is finished, and the next member goes on from there.
pub async fn close_commits_and_leaves(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("close", 1).await, fixture.group("close"));
    fixture.send_numbers(&topic, 0..5).await;
    let mut first = fixture.join(&group, &[&topic]);
    let records = first.records(5).await;
    first.finish(&records, |offset| offset != 3);
    first.close().await;
    assert_eq!(fixture.lag(&group, &topic).await, (1, 2));
    fixture.send_numbers(&topic, 5..6).await;
    let mut second = fixture.join(&group, &[&topic]);
    assert_eq!(offsets(&second.records(2).await), [3, 5]);
}

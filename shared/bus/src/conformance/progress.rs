//! Progress: commits, crashes, lag.

use super::{Fixture, offsets, text};

/// After a crash everything comes again that was not finished and committed.
pub async fn a_crash_redelivers_what_was_not_committed(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("crash", 1).await, fixture.group("crash"));
    fixture.send_numbers(&topic, 0..10).await;
    let mut member = fixture.join(&group, &[&topic]);
    let records = member.records(10).await;
    member.finish(&records, |offset| offset < 4);
    member.commit().await;
    member.finish(&records, |offset| offset >= 4);
    drop(member);
    let mut next = fixture.join(&group, &[&topic]);
    assert_eq!(offsets(&next.records(6).await), [4, 5, 6, 7, 8, 9]);
}

/// What was finished and committed does not come again, even behind an open record; and this holds over and over.
pub async fn what_is_finished_beyond_the_mark_does_not_come_again(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("beyond", 1).await, fixture.group("beyond"));
    fixture.send_numbers(&topic, 0..10).await;
    let mut member = fixture.join(&group, &[&topic]);
    let records = member.records(10).await;
    member.finish(&records, |offset| [0, 2, 3, 7, 9].contains(&offset));
    member.commit().await;
    drop(member);

    fixture.send(&topic, None, "marker").await;
    let mut member = fixture.join(&group, &[&topic]);
    let records = member.records(6).await;
    assert_eq!(offsets(&records), [1, 4, 5, 6, 8, 10]);
    member.finish(&records, |offset| offset == 6);
    member.commit().await;
    drop(member);

    let mut member = fixture.join(&group, &[&topic]);
    let records = member.records(5).await;
    assert_eq!(offsets(&records), [1, 4, 5, 8, 10]);
    assert_eq!(text(&records[4].0), "marker");
}

/// Lag is exact: it counts the records that are not finished, and no others.
pub async fn lag_counts_what_is_not_finished(fixture: &Fixture) {
    let (topic, group) = (fixture.topic("lag", 1).await, fixture.group("lag"));
    assert_eq!(fixture.lag(&group, &topic).await, (0, 0));
    fixture.send_numbers(&topic, 0..10).await;
    assert_eq!(fixture.lag(&group, &topic).await, (10, 10), "a group that never was");
    let mut member = fixture.join(&group, &[&topic]);
    let records = member.records(10).await;
    assert_eq!(fixture.lag(&group, &topic).await, (10, 10), "delivered is not finished");
    member.finish(&records, |offset| [0, 1, 5, 6].contains(&offset));
    assert_eq!(fixture.lag(&group, &topic).await, (10, 10), "finished is not committed");
    member.commit().await;
    assert_eq!(fixture.lag(&group, &topic).await, (6, 8));
    fixture.send(&topic, None, "10").await;
    assert_eq!(fixture.lag(&group, &topic).await, (7, 9));
    member.finish(&records, |offset| ![0, 1, 5, 6].contains(&offset));
    let last = member.records(1).await;
    member.finish(&last, |_| true);
    member.commit().await;
    assert_eq!(fixture.lag(&group, &topic).await, (0, 0));
}

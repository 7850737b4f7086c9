use std::io::Write as _;

use object_store::memory::InMemory;

use super::*;
use crate::settings::TeamLocations;

fn rules(allow: &[&str]) -> LocationRules {
    LocationRules { allow: allow.iter().map(|p| (*p).to_owned()).collect(), ..LocationRules::default() }
}

fn locations(rules: LocationRules) -> Locations {
    let store =
        StoreSettings { uri: "s3://lake/mill".to_owned(), region: Some("eu-1".to_owned()), ..StoreSettings::default() };
    Locations::new(rules, store)
}

fn refusal(locations: &Locations, uri: &str, team: &Team) -> String {
    let refusal = locations.resolve(uri, team).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::LocationRefused);
    assert!(refusal.message.contains(&format!("{:?}", uri::without_secrets(uri))), "{refusal}");
    refusal.message
}

#[test]
fn a_refusal_repeats_no_password_and_no_signature() {
    let any = locations(rules(&[]));
    for (bad, shown) in [
        ("s3://me:hunter2@lake/in.csv", "s3://***@lake/in.csv"),
        ("https://me:hunter2@host:9000/a@b.csv", "https://***@host:9000/a@b.csv"),
        ("https://lake.example/in.csv?X-Amz-Signature=hunter2", "https://lake.example/in.csv?***"),
        ("file://me:hunter2@host/in.csv", "file://***@host/in.csv"),
        ("file:///data/../what?.csv", "file:///data/../what?.csv"),
    ] {
        let message = refusal(&any, bad, &Team::shared());
        assert!(message.contains(&format!("{shown:?}")), "{message}");
    }
}

#[test]
fn a_uri_is_one_of_two_plain_forms_or_refused() {
    let any = locations(LocationRules { allow_file: true, ..rules(&[]) });
    for good in [
        "s3://lake/in.csv",
        "s3://lake/a/b c/ü.csv",
        "s3://my.bucket_1/100%.csv",
        "file:///data/in.csv",
        "file:///data/what? #1.csv",
        "s3://lake/mill/mine.csv",
        "s3://lake/jobs/mine.csv",
    ] {
        assert!(any.resolve(good, &Team::shared()).is_ok(), "{good}");
    }
    for bad in [
        "",
        "in.csv",
        "/data/in.csv",
        "http://lake/in.csv",
        "S3://lake/in.csv",
        "s3:/lake/in.csv",
        "s3://lake",
        "s3://lake/",
        "s3:///in.csv",
        "s3://l/in.csv",
        "s3://LAKE/in.csv",
        "s3://lake@host/in.csv",
        "s3://lake:9000/in.csv",
        "s3://la..ke/in.csv",
        "s3://lake/../other/in.csv",
        "s3://lake/a/./in.csv",
        "s3://lake/a//in.csv",
        "s3://lake//in.csv",
        "s3://lake/in.csv/",
        "s3://lake/%2e%2e/in.csv",
        "s3://lake/%2E%2E%2Fin.csv",
        "s3://lake/in.csv?versionId=1",
        "s3://lake/in.csv#x",
        "s3://lake/in\n.csv",
        "s3://lake/a\\..\\in.csv",
        "file://data/in.csv",
        "file://localhost/in.csv",
        "file:///data/../etc/passwd",
        "file:///",
        "memory://x/y",
    ] {
        refusal(&any, bad, &Team::shared());
    }
}

#[test]
fn the_allow_list_matches_whole_segments() {
    let some = locations(rules(&["s3://lake/in", "s3://other/"]));
    for good in ["s3://lake/in/a.csv", "s3://lake/in", "s3://other/a.csv"] {
        assert!(some.resolve(good, &Team::shared()).is_ok(), "{good}");
    }
    for bad in ["s3://lake/ink/a.csv", "s3://lake/a.csv", "s3://otherone/a.csv", "s3://lak/in/a.csv"] {
        let message = refusal(&some, bad, &Team::shared());
        assert!(message.contains("s3://lake/in, s3://other/"), "{message}");
    }
    for slip in ["s3://", "", "s3", "/"] {
        refusal(&locations(rules(&[slip])), "s3://lake/in.csv", &Team::shared());
    }
}

#[test]
fn files_of_the_machine_need_the_leave_of_the_settings() {
    refusal(&locations(rules(&[])), "file:///etc/passwd", &Team::shared());
    refusal(&locations(rules(&["file:///data"])), "file:///data/in.csv", &Team::shared());
    let allowed = locations(LocationRules { allow_file: true, ..rules(&["file:///data"]) });
    assert!(allowed.resolve("file:///data/in.csv", &Team::shared()).is_ok());
    refusal(&allowed, "file:///etc/passwd", &Team::shared());
}

#[test]
fn a_team_has_its_own_list_and_an_unknown_team_none() {
    let search: Team = "search".parse().unwrap();
    let own = TeamLocations { allow: vec!["s3://search/".to_owned()] };
    let teams = std::collections::BTreeMap::from([(search.clone(), own)]);
    let by_team = locations(LocationRules { teams: teams.clone(), ..rules(&["s3://lake/"]) });
    assert!(by_team.resolve("s3://search/a.csv", &search).is_ok());
    refusal(&by_team, "s3://lake/a.csv", &search);
    assert!(by_team.resolve("s3://lake/a.csv", &Team::shared()).is_ok());
    refusal(&by_team, "s3://lake/a.csv", &"other".parse().unwrap());
    refusal(&by_team, "s3://search/a.csv", &Team::shared());
    // Beside teams the shared topic is not open by default: it would reach what is theirs.
    let unsaid = locations(LocationRules { teams, ..rules(&[]) });
    let message = refusal(&unsaid, "s3://search/a.csv", &Team::shared());
    assert!(message.contains("locations.allow"), "{message}");
}

#[test]
fn a_teams_prefix_has_no_back_door() {
    let (a, b): (Team, Team) = ("team-a".parse().unwrap(), "team-b".parse().unwrap());
    let own = |team: &Team| TeamLocations { allow: vec![format!("s3://lake/{team}/"), format!("file:///lake/{team}")] };
    let teams = [(a.clone(), own(&a)), (b.clone(), own(&b))].into();
    let both = locations(LocationRules { teams, allow_file: true, ..rules(&["s3://lake/shared"]) });
    for (team, other) in [(&a, &b), (&b, &a)] {
        for scheme in ["s3://", "file:///"] {
            assert!(both.resolve(&format!("{scheme}lake/{team}/x.csv"), team).is_ok());
            for outside in [
                format!("{scheme}lake/{other}/x.csv"),
                format!("{scheme}lake/{team}-evil/x.csv"),
                format!("{scheme}lake/{team}evil"),
                format!("{scheme}lake/{team}/../{other}/x.csv"),
                format!("{scheme}lake/{team}/./../{other}/x.csv"),
                format!("{scheme}lake/{team}/%2e%2e/{other}/x.csv"),
                format!("{scheme}lake/{team}/..%2f{other}/x.csv"),
                format!("{scheme}lake/{team}%2f..%2f{other}%2fx.csv"),
                format!("{scheme}lake/{team}\\..\\{other}\\x.csv"),
                format!("{scheme}lake//{team}/x.csv"),
                format!("{scheme}lake/./{team}/x.csv"),
                format!("{scheme}LAKE/{team}/x.csv"),
                format!("{scheme}lake/{}/x.csv", team.as_str().to_uppercase()),
                format!("{scheme}lake/{team}\u{200b}/x.csv"),
                format!("{scheme}lake/{team}\0/x.csv"),
                format!("{scheme}lake:443/{team}/x.csv"),
                format!("{scheme}{team}@lake/{other}/x.csv"),
                format!("{scheme}lake"),
                format!("{scheme}lake/shared/x.csv"),
            ] {
                refusal(&both, &outside, team);
            }
        }
        refusal(&both, &format!("s3://lake/{team}/x.csv"), &Team::shared());
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_resolved_lies_below_the_teams_prefix_for_every_reader(text in "(s3|file)?(://)?[a-z./%25eE\\\\?#@:]{0,40}", tail in "[./%a-z2eE]{0,12}") {
        let team: Team = "team".parse().unwrap();
        let teams = [(team.clone(), TeamLocations { allow: vec!["s3://lake/team/".to_owned()] })].into();
        let some = locations(LocationRules { teams, allow_file: true, ..rules(&[]) });
        for text in [text.clone(), format!("s3://lake/team/{tail}"), format!("s3://lake/team{tail}{text}")] {
            if some.resolve(&text, &team).is_ok() {
                let key = text.strip_prefix("s3://lake/team/").unwrap_or_else(|| panic!("{text}"));
                // No reader that decodes or resolves segments gets out of it.
                let decoded = key.to_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
                proptest::prop_assert!(decoded.split(['/', '\\']).all(|segment| !matches!(segment, "" | "." | "..")), "{}", text);
            }
        }
    }
}

#[test]
fn the_store_itself_is_no_location() {
    for own in ["jobs/a/2-plan.json", "open/a", "outputs/x/1", "probe/x", "jobs"] {
        let message = refusal(&locations(rules(&["s3://lake/"])), &format!("s3://lake/mill/{own}"), &Team::shared());
        assert!(message.contains("the store of batchmill"), "{message}");
    }
}

async fn behaves_like_a_file(location: Location, change: impl AsyncFn(&[u8])) {
    assert_eq!(location.head().await, Ok(None));
    assert_eq!(location.exists().await, Ok(false));
    let gone = location.read(&[0..1, 2..3], "\"x\"").await.unwrap_err();
    assert!(matches!(gone, ReadError::Missing { .. }), "{gone}");
    let mut writer = location.writer();
    writer.write(b"hello ".to_vec()).await.unwrap();
    writer.write(b"world".to_vec()).await.unwrap();
    assert_eq!(location.head().await, Ok(None));
    assert_eq!(writer.finish().await.unwrap().bytes, 11);
    let pinned = location.head().await.unwrap().unwrap();
    assert_eq!(pinned.bytes, 11);
    let parts = location.read(&[6..11, 0..5, 3..3], &pinned.etag).await.unwrap();
    assert_eq!(parts, [&b"world"[..], b"hello", b""]);
    change(b"hello there").await;
    let error = location.read(&[0..5, 5..6], &pinned.etag).await.unwrap_err();
    assert!(matches!(error, ReadError::Changed { .. }), "{error}");
    assert!(error.to_string().contains(location.uri()));
}

#[tokio::test]
async fn an_object_is_read_as_the_version_that_was_pinned() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let location =
        Locations::in_memory(rules(&[]), Arc::clone(&memory)).resolve("s3://lake/in.csv", &Team::shared()).unwrap();
    behaves_like_a_file(location, async |bytes| {
        memory.put(&Key::from("lake/in.csv"), bytes.to_vec().into()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_file_is_read_as_the_version_that_was_pinned_and_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/some #1 100%.csv");
    let any = locations(LocationRules { allow_file: true, ..rules(&[]) });
    let location = any.resolve(&format!("file://{}", path.display()), &Team::shared()).unwrap();
    behaves_like_a_file(location.clone(), async |bytes| {
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    })
    .await;
    let mut dropped = location.writer();
    dropped.write(vec![1; 10]).await.unwrap();
    drop(dropped);
    let names: Vec<_> =
        std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["some #1 100%.csv"]);
    let folder = any.resolve(&format!("file://{}", dir.path().display()), &Team::shared()).unwrap();
    assert!(matches!(folder.head().await, Err(ReadError::Denied { .. })));
}

//! The two forms of a URI: `s3://bucket/key` and `file:///absolute/path`. Pure.

/// A location, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Uri<'a> {
    S3 { bucket: &'a str, key: &'a str },
    File { path: &'a str },
}

/// What batchmill keeps at the top of its store (see `model::keys`), and the probe's folder.
const OWN_FOLDERS: &[&str] = &["jobs", "open", "outputs", "probe"];

/// The longest key that S3 takes (Amazon S3 user guide, "object key names").
const LONGEST_KEY: usize = 1024;

/// Reads a location; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Uri<'_>, &'static str> {
    if text.chars().any(char::is_control) || text.contains('\\') {
        return Err("it has a control character or a backslash");
    }
    if let Some(path) = text.strip_prefix("file://") {
        let inner = path.strip_prefix('/').ok_or("write file:// and an absolute path, as in file:///data/in.csv")?;
        check_segments(inner)?;
        return Ok(Uri::File { path });
    }
    let rest = text.strip_prefix("s3://").ok_or("write s3://bucket/key")?;
    let (bucket, key) = rest.split_once('/').ok_or("the key is missing: write s3://bucket/key")?;
    if !is_bucket(bucket) {
        return Err("that is not the name of a bucket: 3 to 63 of a-z, 0-9, '.', '_' and '-'");
    }
    if key.contains(['?', '#']) {
        return Err("it has a query or a fragment; write s3://bucket/key alone");
    }
    if key.len() > LONGEST_KEY {
        return Err("the key is longer than 1,024 bytes");
    }
    check_segments(key)?;
    Ok(Uri::S3 { bucket, key })
}

/// A location as a message may repeat it: without what may be a secret, `user:password@` and a signed query. A file's name
/// may hold any character and has no query.
pub(super) fn without_secrets(text: &str) -> String {
    let query = if text.starts_with("file:") { None } else { text.find('?') };
    let (text, query) = (&text[..query.unwrap_or(text.len())], if query.is_some() { "?***" } else { "" });
    let Some((scheme, rest)) = text.split_once("://") else { return format!("{text}{query}") };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}{query}"),
        None => format!("{scheme}://{host}{path}{query}"),
    }
}

/// Amazon S3 user guide, "general purpose bucket naming rules"; other servers also take an underscore.
fn is_bucket(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (3..=63).contains(&name.len())
        && name.bytes().all(inner)
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && !name.contains("..")
}

fn check_segments(path: &str) -> Result<(), &'static str> {
    let lower = path.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c", "%00"].iter().any(|encoded| lower.contains(encoded)) {
        return Err("it has an encoded dot, slash or zero; write the name as it is, nothing is decoded");
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err("it has an empty segment, or no name at its end"),
            "." | ".." => return Err("it has a segment '.' or '..'"),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a location lies below a prefix, by whole segments: `s3://lake/in` allows `s3://lake/in/a` and not `s3://lake/ink`;
/// itself it allows unless it ends in a slash.
pub(super) fn is_below(text: &str, prefix: &str) -> bool {
    let (prefix, is_folder) = prefix.strip_suffix('/').map_or((prefix, false), |prefix| (prefix, true));
    // A prefix of no bucket at all would allow everything, and is likelier a slip.
    if prefix.ends_with('/') || !prefix.contains("://") {
        return false;
    }
    text.strip_prefix(prefix).is_some_and(|rest| (rest.is_empty() && !is_folder) || rest.starts_with('/'))
}

/// Whether a location is one that the store itself may use.
pub(super) fn is_in_store(text: &str, store: &str) -> bool {
    let store = store.strip_suffix('/').unwrap_or(store);
    if store.ends_with('/') {
        return false;
    }
    OWN_FOLDERS.iter().any(|folder| is_below(text, &format!("{store}/{folder}")))
}

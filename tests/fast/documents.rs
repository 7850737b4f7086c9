//! What documents promise about the code is looked up in the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use model::RefusalCode;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_refusal_has_a_page_and_every_page_a_refusal() {
    let pages: BTreeSet<String> = std::fs::read_dir(root().join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "README")
        .collect();
    let codes: BTreeSet<String> = RefusalCode::ALL.iter().map(|code| code.to_string()).collect();
    assert_eq!(pages, codes);
    let index = read("docs/errors/README.md");
    for code in &codes {
        let page = read(&format!("docs/errors/{code}.md"));
        assert!(page.contains("**Cause.**") && page.contains("**Cure.**"), "{code}");
        assert!(index.contains(&format!("({code}.md)")), "{code} is not in the index");
    }
}

#[test]
fn the_readme_has_its_two_commands() {
    let readme = read("README.md");
    assert!(readme.contains(
        "cargo run --release -- run tests/data/products.csv --template 'Describe {{ title }}' --model sim/echo"
    ));
    assert!(readme.contains("./tests/run"));
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/errors/README.md", "schemas/README.md"] {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                assert!(folder.join(target).exists(), "{document} links to {link}");
            }
        }
    }
}

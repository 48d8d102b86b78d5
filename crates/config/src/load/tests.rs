use std::fs;

use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::value::{NodeName, Span, TagMap};
use crate::{NotYet, kinds};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn load(main: &str) -> (TempDir, Load) {
    let folder = folder(&[("main.yml", main)]);
    let load = Load::open(&folder.path().join("main.yml"));
    (folder, load)
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Runtime {
    thread_number: Option<usize>,
    thread_name: Option<String>,
    task_wait_delay: Option<Span>,
}

kinds! {
    /// A node of the tests.
    #[derive(Debug)]
    enum Sample: "escaper" {
        /// Of one kind.
        #[expect(dead_code, reason = "that it decodes is all that counts")]
        Deny(Deny) = "dummy_deny",
        /// Of another.
        #[expect(dead_code, reason = "that it decodes is all that counts")]
        Next(Next) = "route_select" | "select",
    }
    not built { "trick_float" }
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Deny {
    #[serde(default)]
    #[expect(dead_code, reason = "that it decodes is all that counts")]
    extra_metrics_tags: TagMap,
    #[serde(default)]
    #[schemars(skip)]
    #[expect(dead_code, reason = "never anything")]
    later: Option<NotYet>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Next {
    #[expect(dead_code, reason = "that it decodes is all that counts")]
    next: NodeName,
}

/// The names of what is loaded.
fn names(load: &mut Load) -> Vec<String> {
    load.nodes::<Sample>("escaper")
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

fn errors(load: Load) -> Vec<String> {
    let errors = load.finish().expect_err("something is wrong").errors;
    errors
        .into_iter()
        .map(|error| format!("{}: {}", error.path, error.message))
        .collect()
}

#[test]
fn sections_are_read_in_any_spelling_and_absence() {
    let (_folder, mut load) = load("Runtime: {Thread-Number: '2'}\nlog: ~\n");
    assert_eq!(load.section::<Runtime>("runtime").unwrap().thread_number, Some(2));
    assert_eq!(load.section::<Runtime>("worker"), None);
    assert_eq!(load.section::<Runtime>("log"), Some(Runtime::default()));
    assert_eq!(load.finish().unwrap(), []);
}

#[test]
fn a_daemons_own_section_takes_the_place_of_the_roots() {
    let text = "log: {thread_name: all}\nruntime: {thread_number: 8}\nicap_stub:\nresolverd:\n  log: {thread_name: own}\n  \
                runtime: {thread_number: 1}\n";
    let (_folder, mut load) = load(text);
    let name = |load: &mut Load, daemon| {
        load.daemon_section::<Runtime>(daemon, "log")
            .unwrap()
            .thread_name
            .unwrap()
    };
    let threads = |load: &mut Load, daemon| {
        load.daemon_section::<Runtime>(daemon, "runtime")
            .map(|own| own.thread_number)
    };
    assert_eq!(name(&mut load, "resolverd"), "own");
    assert_eq!(name(&mut load, "icap-stub"), "all");
    assert_eq!(name(&mut load, "proxyd"), "all");
    assert_eq!(threads(&mut load, "resolverd"), Some(Some(1)));
    assert_eq!(threads(&mut load, "auditd"), None);
    assert_eq!(threads(&mut load, "proxyd"), Some(Some(8)));
    // What is left of the daemon's map is its own.
    assert_eq!(load.section::<Runtime>("resolverd"), Some(Runtime::default()));
    assert_eq!(load.section::<Runtime>("icap-stub"), Some(Runtime::default()));
    assert_eq!(load.finish().unwrap(), []);
}

#[test]
fn a_daemons_map_may_be_spread_over_documents() {
    let (_folder, mut load) = load("auditd: {log: {thread_name: a}}\n---\nauditd: {thread_number: 5}\n");
    assert_eq!(
        load.daemon_section::<Runtime>("auditd", "log")
            .unwrap()
            .thread_name
            .as_deref(),
        Some("a")
    );
    assert_eq!(load.section::<Runtime>("auditd").unwrap().thread_number, Some(5));
}

#[test]
fn errors_of_a_daemons_own_section_have_its_path() {
    let (_folder, mut load) = load("resolverd:\n  Runtime:\n    thread_number: x\n    colour: y\n");
    assert_eq!(load.daemon_section::<Runtime>("resolverd", "runtime"), None);
    let errors = load.finish().unwrap_err().errors;
    assert_eq!(
        (errors[0].path.as_str(), errors[0].at),
        ("resolverd.Runtime.thread_number", Some((3, 20)))
    );
    assert_eq!(
        (errors[1].path.as_str(), errors[1].at),
        ("resolverd.Runtime", Some((4, 5)))
    );
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let (_folder, mut load) = load("\u{feff}runtime: {thread_number: 2}\n");
    assert_eq!(load.section::<Runtime>("runtime").unwrap().thread_number, Some(2));
    assert_eq!(load.finish().unwrap(), []);
}

#[test]
fn several_documents_are_as_one() {
    let (_folder, mut load) = load(
        "runtime: {thread_number: 1, thread_name: a}\nescaper: [{name: a, type: dummy_deny}]\n---\nruntime: {Thread-Number: 2}\n\
         escaper: [{name: b, type: dummy_deny}]\n---\nstat: {thread_name: first}\n---\nstat: {thread_name: second}\n",
    );
    let runtime = load.section::<Runtime>("runtime").unwrap();
    assert_eq!(
        (runtime.thread_number, runtime.thread_name.as_deref()),
        (Some(2), Some("a"))
    );
    assert_eq!(
        load.section::<Runtime>("stat").unwrap().thread_name.as_deref(),
        Some("first")
    );
    assert_eq!(names(&mut load), ["a", "b"]);
    let warnings = load.finish().unwrap();
    assert_eq!(
        warnings[0].message,
        "`stat` of an earlier document counts, this one has no effect"
    );
}

#[test]
fn an_error_is_placed_in_the_document_that_its_key_is_in() {
    let (_folder, mut load) =
        load("RunTime: {thread_name: a, task_wait_delay: x}\n---\na_b: 1\n---\nruntime: {thread_number: x}\n");
    assert_eq!(load.section::<Runtime>("runtime"), None);
    let errors = load.finish().unwrap_err().errors;
    assert_eq!(
        errors.iter().map(|error| error.at).collect::<Vec<_>>(),
        [Some((1, 44)), Some((3, 1)), Some((5, 26))]
    );
}

#[test]
fn nodes_come_from_lists_files_and_folders_in_a_fixed_order() {
    // CFG-04
    let deny = |name: &str| format!("name: {name}\ntype: dummy_deny\n");
    let folder = folder(&[
        (
            "main.yml",
            "escaper: [deny.d, two.txt, {name: inline, type: dummy_deny}]\n",
        ),
        ("two.txt", &format!("{}---\n{}", deny("two_a"), deny("two_b"))),
        ("deny.d/b.yml", &deny("b")),
        ("deny.d/a.conf", &deny("a")),
        ("deny.d/c.yaml", &deny("not_read")),
        ("deny.d/README", "not read"),
        ("deny.d/empty.yml", ""),
        ("deny.d/below.yml/x.yml", &deny("not_read_either")),
    ]);
    let mut load = Load::open(&folder.path().join("main.yml"));
    assert_eq!(names(&mut load), ["a", "b", "two_a", "two_b", "inline"]);
    assert_eq!(load.names("escaper"), ["a", "b", "two_a", "two_b", "inline"]);
    assert_eq!(load.finish(), Ok(vec![]));
}

#[test]
fn a_main_file_without_extension_takes_every_file_of_a_folder() {
    let folder = folder(&[
        ("main", "escaper: deny.d\n"),
        ("deny.d/a", "{name: a, type: dummy_deny}"),
        ("deny.d/b.txt", "{name: b, type: dummy_deny}"),
    ]);
    let mut load = Load::open(&folder.path().join("main"));
    assert_eq!(names(&mut load), ["a", "b"]);
}

#[test]
fn links_to_files_are_followed_and_dangling_ones_are_errors() {
    let folder = folder(&[
        ("main.yml", "escaper: deny.d\n"),
        ("elsewhere/a.yml", "{name: a, type: dummy_deny}"),
        ("deny.d/z.yml", "{name: z, type: dummy_deny}"),
    ]);
    let link =
        |to: &str, from: &str| std::os::unix::fs::symlink(folder.path().join(to), folder.path().join(from)).unwrap();
    link("elsewhere/a.yml", "deny.d/a.yml");
    link("elsewhere", "deny.d/folder.yml");
    link("nowhere", "deny.d/dangling.yml");
    let mut load = Load::open(&folder.path().join("main.yml"));
    let entries = load.nodes::<Sample>("escaper");
    assert_eq!(
        entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
        ["a", "z"]
    );
    // Relative names of a node count from where its file really is.
    assert!(entries[0].place.base_dir().ends_with("elsewhere"));
    assert!(entries[1].place.base_dir().ends_with("deny.d"));
    assert_eq!(errors(load), [": cannot be read: no such file or directory"]);
}

#[test]
fn the_main_file_of_a_folder_is_found() {
    let folder = folder(&[
        ("g3proxy.conf", "runtime: {thread_number: 3}\n"),
        ("main.conf", "runtime: {thread_number: 5}\n"),
    ]);
    let mut load = Load::open(folder.path());
    assert_eq!(load.section::<Runtime>("runtime").unwrap().thread_number, Some(5));
    fs::remove_file(folder.path().join("main.conf")).unwrap();
    let mut load = Load::open(folder.path());
    assert_eq!(load.section::<Runtime>("runtime").unwrap().thread_number, Some(3));
    fs::remove_file(folder.path().join("g3proxy.conf")).unwrap();
    assert_eq!(
        errors(Load::open(folder.path())),
        [": this folder has no main file: `main.yaml`, `main.yml` or `main.conf`"]
    );
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        errors(Load::open(&folder.path().join("none.yml"))),
        [": cannot be read: no such file or directory"]
    );
    fs::write(folder.path().join("main.yml"), b"a: b\nc: \xff\n").unwrap();
    let errors = Load::open(folder.path()).finish().unwrap_err().errors;
    assert_eq!(
        (errors[0].message.as_str(), errors[0].at),
        ("this byte is not UTF-8", Some((2, 4)))
    );
}

#[test]
fn types_are_named_in_any_spelling() {
    let (_folder, mut load) = load(
        "escaper:\n- {name: a, type: DummyDeny}\n- {name: b, type: dummy-deny}\n- {name: c, Type: Dummy_Deny}\n- {name: d, \
         type: routeselect, next: a}\n- {name: e, type: SELECT, next: a}\n",
    );
    assert_eq!(names(&mut load), ["a", "b", "c", "d", "e"]);
    assert_eq!(load.finish(), Ok(vec![]));
}

#[test]
fn the_old_name_of_a_section_is_read_too() {
    let (_folder, mut load) = load("user: [{name: a, type: dummy_deny}]\nuser_group: [{name: b, type: dummy_deny}]\n");
    let groups: Vec<_> = load
        .nodes::<Sample>("user_group")
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(groups, ["a", "b"]);
}

#[test]
fn a_reference_to_a_broken_node_is_no_error_of_its_own() {
    let (_folder, mut load) =
        load("escaper:\n- {name: a, type: select, next: b}\n- {name: b, type: select, colour: x}\n");
    let entries = load.nodes::<Sample>("escaper");
    let place = &entries[0].place;
    assert!(load.refer(place, "next", "escaper", "b"));
    assert!(!load.refer(place, "next", "escaper", "bb"));
    load.dangling(&entries[0], "next", "escaper", "b", &["a".to_owned()]);
    assert_eq!(
        errors(load),
        [
            "escaper[0] `a`.next: no escaper is named `bb`",
            "escaper[1] `b`: `next` is missing",
            "escaper[1] `b`: unknown key `colour`",
        ]
    );
}

#[test]
fn keys_without_effect_are_one_warning_each() {
    kinds! {
        #[derive(Debug)]
        enum Resolver: "resolver" {
            #[expect(dead_code, reason = "that it decodes is all that counts")]
            Hickory(Deny) = "hickory",
        }
        not built { "c_ares" }
    }
    let (_folder, mut load) = load("resolver:\n- {name: a, type: Hickory, Negative-Max-TTL: [anything]}\n");
    assert_eq!(load.nodes::<Resolver>("resolver").len(), 1);
    let warnings = load.finish().unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].to_string().rsplit_once("main.yml:").unwrap().1,
        "2:28: resolver[0] `a`: `Negative-Max-TTL` has no effect: answers without addresses are kept for `negative_min_ttl`"
    );
}

#[test]
fn old_names_of_keys_are_taken_with_a_warning() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Stat {
        emit_interval: Option<Span>,
    }
    let (_folder, mut load) = load("stat: {Emit-Duration: 5}\n");
    assert_eq!(load.section::<Stat>("stat").unwrap().emit_interval, Some(Span::secs(5)));
    let warnings = load.finish().unwrap();
    assert_eq!(
        (warnings[0].path.as_str(), warnings[0].message.as_str()),
        ("stat", "`Emit-Duration` is an old name of `emit_interval`")
    );
}

#[test]
fn a_generator_has_a_file_of_its_own() {
    let folder = folder(&[(
        "g3fcgen.yml",
        "backend: {thread_name: x}\nruntime: {thread_number: 2, task_quit_timeout: 5}\n",
    )]);
    let mut load = Load::open_certgen(folder.path());
    assert!(load.is_certgen());
    assert_eq!(
        load.section::<Runtime>("backend").unwrap().thread_name.as_deref(),
        Some("x")
    );
    assert_eq!(
        load.daemon_section::<Runtime>("certgend", "runtime")
            .unwrap()
            .thread_number,
        Some(2)
    );
    assert_eq!(
        load.finish().unwrap()[0].message,
        "`task_quit_timeout` has no effect: a mint has no task to wait for"
    );
}

#[test]
fn a_generator_takes_a_group_s_file_too() {
    let folder = folder(&[("main.yml", "certgend: {}\nserver: []\n---\nescaper: []\n")]);
    let mut load = Load::open_certgen(folder.path());
    assert!(!load.is_certgen() && load.place("certgend").is_some());
    assert!(load.section::<Runtime>("certgend").is_some());
    load.finish().unwrap();
}

#[test]
fn findings_read_as_one_block_each() {
    let (_folder, mut load) = load("runtme: 5\nescaper:\n- {name: a, type: selct}\n");
    let _ = load.nodes::<Sample>("escaper");
    let text = load.finish().unwrap_err().to_string();
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.rsplit_once("main.yml:").map_or(line, |(_, line)| line))
        .collect();
    assert_eq!(
        lines,
        [
            "1:1: unknown section `runtme`",
            "    did you mean `runtime`?",
            "3:19: escaper[0] `a`.type: no escaper type is named `selct`",
            "    did you mean `select`?",
        ]
    );
}

#[test]
fn errors_without_number_have_an_end() {
    let many = format!(
        "escaper:\n{}",
        "- {name: a b, type: dummy_deny, colour: red}\n".repeat(200)
    );
    let (_folder, mut load) = load(&many);
    assert!(names(&mut load).is_empty());
    let errors = load.finish().unwrap_err().errors;
    assert_eq!(errors.len(), MOST_ERRORS + 1);
    assert_eq!(
        errors.last().map(|error| error.message.as_str()),
        Some("200 more errors are not shown")
    );
}

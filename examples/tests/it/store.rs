//! `store`, run as a user runs it.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use runtide_core::store::StoreEvent;
use tempfile::TempDir;

const TWO: &str = "# of web\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: shop\n  labels: {tier: front}\nspec:\n  replicas: 2\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";

fn store(folder: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut examples: PathBuf = env::current_exe().unwrap();
    examples.pop();
    examples.set_file_name("examples");
    let mut command = Command::new(examples.join(format!("store{}", env::consts::EXE_SUFFIX)));
    command.current_dir(folder).args(args).env_remove("CLICOLOR_FORCE");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A process that refuses its arguments exits before it reads.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

struct Folder(TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    /// The stdout of a command on the store in the folder `S`.
    fn said(&self, command: &str) -> String {
        let args: Vec<&str> = ["--store", "dir:S"].into_iter().chain(command.split(' ')).collect();
        let output = store(self.0.path(), &args, b"");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line on stderr.
    fn refused(&self, command: &str) -> String {
        let args: Vec<&str> = ["--store", "dir:S"].into_iter().chain(command.split(' ')).collect();
        let output = store(self.0.path(), &args, b"");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(2), 1), "{command}: {complaint}");
        complaint
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), text).unwrap();
    }
}

#[test]
fn a_change_is_shown_line_by_line_and_none_is_none() {
    let folder = Folder::with(&[("two.yaml", TWO)]);
    assert_eq!(folder.said("apply two.yaml"), "created    apps/Deployment/shop/web at 1\ncreated    /Node//n1 at 2\n");
    assert_eq!(folder.said("apply two.yaml"), "unchanged  apps/Deployment/shop/web at 1\nunchanged  /Node//n1 at 2\n");
    folder.write("two.yaml", TWO.replace("replicas: 2", "replicas: 3"));
    let changed = folder.said("apply two.yaml");
    assert!(changed.starts_with("changed    apps/Deployment/shop/web at 3\n  --- yaml at 1\n"), "{changed}");
    assert!(changed.contains("\n  -  replicas: 2\n  +  replicas: 3\n"), "{changed}");
    assert!(changed.ends_with("unchanged  /Node//n1 at 2\n"), "{changed}");
}

#[test]
fn a_precondition_that_fails_changes_nothing() {
    let folder = Folder::with(&[
        ("two.yaml", TWO),
        ("one.json", r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}"#),
    ]);
    folder.said("apply two.yaml");
    assert!(folder.refused("apply --if-absent one.json").contains("revision=2"));
    assert!(folder.refused("apply --if-revision 1 one.json").contains("revision=2"));
    assert!(folder.refused("apply --if-revision 1 two.yaml").contains("several"));
    assert!(folder.refused("delete --if-revision 1 /Node//n1").contains("revision=2"));
    let changed = folder.said("apply --if-revision 2 one.json");
    assert!(changed.starts_with("changed    /Node//n1 at 3\n  --- yaml at 2\n  +++ json at 3\n"), "{changed}");
    assert_eq!(folder.said("delete --if-revision 3 /Node//n1"), "deleted    /Node//n1 at 4\n");
    assert_eq!(folder.said("delete /Node//n1"), "unchanged  /Node//n1 was not there\n");
}

#[test]
fn a_listing_selects_by_parts_and_labels() {
    let folder = Folder::with(&[("two.yaml", TWO), ("job.hcl", "job \"a\" {\n  meta { tier = \"front\" }\n}\n")]);
    folder.said("apply two.yaml");
    folder.said("apply job.hcl");
    let names = |command: &str| {
        let said = folder.said(command);
        said.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("list --page 1"), ["/Node//n1", "/job//a", "apps/Deployment/shop/web"]);
    assert_eq!(names("list -l tier=front"), ["/job//a", "apps/Deployment/shop/web"]);
    assert_eq!(names("list -l !tier"), ["/Node//n1"]);
    assert_eq!(names("list -n shop --kind Deployment"), ["apps/Deployment/shop/web"]);
    let json = folder.said("list -l tier -o json");
    let values = serde_json::Deserializer::from_str(&json).into_iter::<serde_json::Value>();
    assert_eq!(values.map(Result::unwrap).count(), 2, "{json}");
    assert_eq!(folder.said("get /job//a -o yaml"), "job:\n  a:\n    meta:\n      tier: front\n");
    assert_eq!(folder.said("get /Node//n1"), "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n");
    assert!(folder.refused("get /Node//n2").contains("not there"));
    assert!(folder.refused("get /Node//n1 -o native").contains("native cannot carry this yaml"));
}

#[test]
fn a_watch_prints_the_present_state_and_lines_of_json_read_back() {
    let folder = Folder::with(&[("two.yaml", TWO)]);
    folder.said("apply two.yaml");
    let json = folder.said("watch --since start --for 3s --json");
    let events: Vec<StoreEvent> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        matches!(
            events[..],
            [StoreEvent::Reset { .. }, StoreEvent::Added(_), StoreEvent::Added(_), StoreEvent::Bookmark { .. }]
        ),
        "{json}"
    );
    assert!(folder.refused("watch --since 99 --for 300ms").contains("revision"));
}

#[test]
fn a_snapshot_is_restored_into_another_store_and_a_corrupt_one_is_not() {
    let folder = Folder::with(&[("two.yaml", TWO)]);
    folder.said("apply two.yaml");
    assert!(folder.said("snapshot all").starts_with("written    2 resources at 2, sealed "));
    folder.said("delete /Node//n1");
    assert!(folder.said("restore all").starts_with("restored   2 resources at "));
    assert!(folder.said("get /Node//n1").contains("name: n1"));
    let mut bytes = fs::read(folder.0.path().join("all")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    folder.write("all", bytes);
    folder.refused("restore all");
    assert!(folder.said("stats").contains("resources  2\n"));
}

#[test]
fn a_session_holds_a_store_in_memory_until_its_first_mistake() {
    let folder = Folder::with(&[]);
    let session = format!("# a comment\napply -\n{TWO}...\n\nlist --name 'web'\ndelete /Node//n1\nbogus\nstats\n");
    let output = store(folder.0.path(), &[], session.as_bytes());
    let (said, complaint) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(said.ends_with("deleted    /Node//n1 at 3\n") && complaint.contains("'bogus'"), "{said}{complaint}");
    assert!(folder.0.path().read_dir().unwrap().next().is_none(), "nothing is on the disk");
    let demo = store(folder.0.path(), &["demo"], b"");
    assert!(demo.status.success() && String::from_utf8(demo.stdout).unwrap().contains("+  replicas: 3"));
}

#[test]
fn the_demo_takes_only_an_empty_store() {
    let folder = Folder::with(&[("two.yaml", TWO)]);
    folder.said("apply two.yaml");
    let before = folder.said("get apps/Deployment/shop/web");
    assert!(folder.refused("demo").contains("this store has 2"));
    assert_eq!(folder.said("get apps/Deployment/shop/web"), before, "it is the user's");
    assert!(folder.said("stats").contains("resources  2\n"));
    let empty = Folder::with(&[]);
    assert!(empty.said("demo").contains("+  replicas: 3"));
}

#[test]
fn errors_are_reported_in_one_line() {
    let folder = Folder::with(&[
        ("bomb.yaml", "a: &a [x,x,x,x,x,x,x,x]\n"),
        ("twice.json", r#"{"apiVersion":"v1","kind":"A","kind":"B"}"#),
        ("cut.hcl", "job \"a\" {"),
        ("odd.yaml", "apiVersion: v1\nkind: \"\\e[31mK\"\nmetadata: {name: web}\n"),
        ("empty.yaml", "# nothing\n---\n"),
    ]);
    folder.write("bytes.yaml", [0xff, 0xfe]);
    folder.write("deep.json", "[".repeat(10_000));
    folder.write("long.yaml", vec![b'#'; 9 << 20]);
    for (file, why) in [
        ("bomb.yaml", "`apiVersion` is missing"),
        ("twice.json", "\"kind\""),
        ("cut.hcl", "line 1"),
        ("odd.yaml", "not a kind"),
        ("bytes.yaml", "UTF-8"),
        ("deep.json", "deep"),
        ("long.yaml", "8388608"),
        ("absent.yaml", "absent.yaml"),
    ] {
        let complaint = folder.refused(&format!("apply {file}"));
        assert!(complaint.contains(why) && !complaint.contains('\x1b'), "{complaint}");
    }
    assert_eq!(folder.said("apply empty.yaml"), "");
    assert!(folder.refused("get a").contains("group/kind/namespace/name"));
    assert!(folder.refused("list -o xml").contains("yaml, yml, json"));
    let etcd = store(folder.0.path(), &["--store", "etcd:localhost:1", "stats"], b"");
    assert_eq!(etcd.status.code(), Some(2));
}

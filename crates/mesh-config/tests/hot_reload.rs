//! A directory that changes while it is watched. Nothing here sleeps: each step waits for the configuration that it
//! must lead to.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_config::{Code, Config, DirectoryError, Options, watch};
use tokio::sync::watch::Receiver;

/// Far more than any step takes; only a failure gets here.
const PATIENCE: Duration = Duration::from_secs(20);

fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  uid: u-{name}\nspec: {{nodeName: a}}\nstatus:\n  podIP: {address}\n---\n"
    )
}

/// A pod whose YAML does not parse.
fn broken_pod(name: &str) -> String {
    pod(name, "[10.0.0.9")
}

async fn started(dir: &Path) -> Receiver<Arc<Config>> {
    watch(dir.to_owned(), Options::default()).await.unwrap()
}

/// `name=address` of every pod.
fn pods(config: &Config) -> Vec<String> {
    let workloads = config.snapshot.workloads();
    workloads.map(|w| format!("{}={}", w.name, w.addresses.first().unwrap())).collect()
}

fn codes(config: &Config) -> Vec<Code> {
    let findings = config.findings.iter().map(|finding| finding.code);
    findings.filter(|code| *code != Code::NoNamespace).collect()
}

/// Waits until these pods are in force, with these findings.
async fn shows(configs: &mut Receiver<Arc<Config>>, expected: &[&str], findings: &[Code]) -> Arc<Config> {
    let meant = |config: &Arc<Config>| pods(config) == expected && codes(config) == findings;
    let waited = tokio::time::timeout(PATIENCE, configs.wait_for(meant)).await;
    let found = waited.map(|config| Arc::clone(&config.unwrap()));
    found.unwrap_or_else(|_| {
        let last = configs.borrow();
        panic!("expected {expected:?} {findings:?}, found {:?} {:?}", pods(&last), last.findings)
    })
}

#[tokio::test]
async fn files_that_come_change_and_go_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut configs = started(dir.path()).await;
    assert_eq!(configs.borrow().generation, 1);
    fs::write(dir.path().join("one.yaml"), pod("one", "10.0.0.1")).unwrap();
    shows(&mut configs, &["one=10.0.0.1"], &[]).await;
    fs::write(dir.path().join("two.json"), r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"two","uid":"2"},"spec":{"nodeName":"a"},"status":{"podIP":"10.0.0.2"}}"#).unwrap();
    shows(&mut configs, &["one=10.0.0.1", "two=10.0.0.2"], &[]).await;
    fs::write(dir.path().join("one.yaml"), pod("one", "10.0.0.3")).unwrap();
    shows(&mut configs, &["one=10.0.0.3", "two=10.0.0.2"], &[]).await;
    fs::remove_file(dir.path().join("one.yaml")).unwrap();
    shows(&mut configs, &["two=10.0.0.2"], &[]).await;
    fs::write(dir.path().join(".new"), pod("two", "10.0.0.4")).unwrap();
    fs::rename(dir.path().join(".new"), dir.path().join("two.json.yml")).unwrap();
    fs::remove_file(dir.path().join("two.json")).unwrap();
    shows(&mut configs, &["two=10.0.0.4"], &[]).await;
}

#[tokio::test]
async fn directories_that_come_and_go_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut configs = started(dir.path()).await;
    let deep = dir.path().join("shop/cart");
    for round in 1..=3 {
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("pod.yaml"), pod("one", &format!("10.0.0.{round}"))).unwrap();
        shows(&mut configs, &[&format!("one=10.0.0.{round}")], &[]).await;
        fs::write(deep.join("pod.yaml"), pod("one", &format!("10.0.1.{round}"))).unwrap();
        shows(&mut configs, &[&format!("one=10.0.1.{round}")], &[]).await;
        fs::remove_dir_all(dir.path().join("shop")).unwrap();
        shows(&mut configs, &[], &[]).await;
    }
}

#[tokio::test]
async fn a_broken_document_keeps_its_last_good_version_and_the_rest_moves_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pods.yaml");
    fs::write(&file, pod("a", "10.0.0.1") + &pod("b", "10.0.0.2") + &pod("c", "10.0.0.3")).unwrap();
    let mut configs = started(dir.path()).await;
    // `b` breaks and can still be told by name; `a` changes, `c` goes.
    fs::write(&file, pod("a", "10.0.0.7") + &broken_pod("b")).unwrap();
    let config = shows(&mut configs, &["a=10.0.0.7", "b=10.0.0.2"], &[Code::Syntax, Code::LastGood]).await;
    let finding = config.findings.iter().find(|f| f.code == Code::LastGood).unwrap();
    assert_eq!(*finding.origin.file, *Path::new("pods.yaml"));
    assert_eq!(finding.origin.object.as_ref().unwrap().to_string(), "Pod default/b");
    // A field of the wrong type is no different, and what is kept survives another change of the file.
    let wrong = pod("b", "10.0.0.8").replace("{nodeName: a}", "{nodeName: 7}");
    fs::write(&file, pod("a", "10.0.0.6") + &wrong).unwrap();
    shows(&mut configs, &["a=10.0.0.6", "b=10.0.0.2"], &[Code::WrongField, Code::LastGood]).await;
    fs::write(&file, pod("a", "10.0.0.6") + &pod("b", "10.0.0.8")).unwrap();
    shows(&mut configs, &["a=10.0.0.6", "b=10.0.0.8"], &[]).await;
}

#[tokio::test]
async fn a_file_broken_beyond_recognition_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pods.yaml");
    let mut configs = started(dir.path()).await;
    let breakages: [(&[u8], Code); 3] =
        [(b"\"unclosed", Code::Syntax), (b"\xff\xfe", Code::Unreadable), (b"- just\n- a list", Code::NoHeader)];
    for (bytes, code) in breakages {
        fs::write(&file, pod("a", "10.0.0.1") + &pod("b", "10.0.0.2")).unwrap();
        shows(&mut configs, &["a=10.0.0.1", "b=10.0.0.2"], &[]).await;
        fs::write(&file, bytes).unwrap();
        shows(&mut configs, &["a=10.0.0.1", "b=10.0.0.2"], &[code, Code::LastGood]).await;
        // It is only the file that speaks for them: when it goes, they go.
        fs::remove_file(&file).unwrap();
        shows(&mut configs, &[], &[]).await;
    }
}

#[tokio::test]
async fn what_is_kept_yields_to_a_new_word_in_another_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), pod("one", "10.0.0.1")).unwrap();
    let mut configs = started(dir.path()).await;
    fs::write(dir.path().join("a.yaml"), "{").unwrap();
    shows(&mut configs, &["one=10.0.0.1"], &[Code::Syntax, Code::LastGood]).await;
    fs::write(dir.path().join("b.yaml"), pod("one", "10.0.0.2")).unwrap();
    shows(&mut configs, &["one=10.0.0.2"], &[Code::Syntax, Code::LastGood]).await;
}

#[tokio::test]
async fn a_dangling_link_keeps_what_it_led_to() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("pod.yaml");
    fs::write(&target, pod("one", "10.0.0.1")).unwrap();
    symlink(&target, dir.path().join("pod.yaml")).unwrap();
    let mut configs = started(dir.path()).await;
    fs::write(&target, pod("one", "10.0.0.2")).unwrap();
    shows(&mut configs, &["one=10.0.0.2"], &[]).await;
    fs::remove_file(&target).unwrap();
    shows(&mut configs, &["one=10.0.0.2"], &[Code::Unreadable]).await;
    fs::remove_file(dir.path().join("pod.yaml")).unwrap();
    shows(&mut configs, &[], &[]).await;
}

/// As kubelet writes a ConfigMap's volume: `pod.yaml -> ..data/pod.yaml`, `..data -> ..<time>`, swapped by a rename.
#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_swaps() {
    let dir = tempfile::tempdir().unwrap();
    let write = |round: u32| {
        let version = dir.path().join(format!("..2026_{round}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("pod.yaml"), pod("one", &format!("10.0.0.{round}"))).unwrap();
        symlink(format!("..2026_{round}"), dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        let _ = fs::remove_dir_all(dir.path().join(format!("..2026_{}", round - 1)));
    };
    write(1);
    symlink("..data/pod.yaml", dir.path().join("pod.yaml")).unwrap();
    let mut configs = started(dir.path()).await;
    for round in 2..=5 {
        write(round);
        shows(&mut configs, &[&format!("one=10.0.0.{round}")], &[]).await;
    }
}

#[tokio::test]
async fn a_root_that_is_a_link_is_followed_when_it_is_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let release = |round: u32| {
        let release = dir.path().join(format!("release-{round}"));
        fs::create_dir(&release).unwrap();
        fs::write(release.join("pod.yaml"), pod("one", &format!("10.0.0.{round}"))).unwrap();
        symlink(&release, dir.path().join("next")).unwrap();
        fs::rename(dir.path().join("next"), dir.path().join("current")).unwrap();
    };
    release(1);
    let mut configs = started(&dir.path().join("current")).await;
    for round in 2..=4 {
        release(round);
        shows(&mut configs, &[&format!("one=10.0.0.{round}")], &[]).await;
        let file = dir.path().join(format!("release-{round}/pod.yaml"));
        fs::write(file, pod("one", &format!("10.0.1.{round}"))).unwrap();
        shows(&mut configs, &[&format!("one=10.0.1.{round}")], &[]).await;
    }
}

#[tokio::test]
async fn while_the_root_is_away_what_it_said_stays_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("manifests");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("pod.yaml"), pod("one", "10.0.0.1")).unwrap();
    let mut configs = started(&root).await;
    for round in 2..=3 {
        let before = configs.borrow().clone();
        fs::remove_dir_all(&root).unwrap();
        shows(&mut configs, &[&pods(&before)[0]], &[Code::Unreadable]).await;
        fs::create_dir(&root).unwrap();
        fs::write(root.join("pod.yaml"), pod("one", &format!("10.0.0.{round}"))).unwrap();
        shows(&mut configs, &[&format!("one=10.0.0.{round}")], &[]).await;
    }
}

#[tokio::test]
async fn constant_change_does_not_hold_a_configuration_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut configs = started(dir.path()).await;
    let seen = Arc::new(AtomicBool::new(false));
    let writer = {
        let (path, seen) = (dir.path().to_owned(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut round = 0u32;
            // Never quiet until a change was seen.
            while !seen.load(Ordering::Relaxed) {
                round += 1;
                let address = format!("10.0.{}.{}", round >> 8 & 255, round & 255);
                fs::write(path.join(".new"), pod("one", &address)).unwrap();
                fs::rename(path.join(".new"), path.join("pod.yaml")).unwrap();
            }
            pod("one", "10.1.1.1")
        })
    };
    for _ in 0..3 {
        tokio::time::timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
        configs.mark_unchanged();
    }
    seen.store(true, Ordering::Relaxed);
    let last = tokio::task::spawn_blocking(|| writer.join().unwrap()).await.unwrap();
    fs::write(dir.path().join("pod.yaml"), last).unwrap();
    shows(&mut configs, &["one=10.1.1.1"], &[]).await;
}

/// Several writers at once, as controllers and labs are, in bursts and with pauses of every length around those that the
/// watcher settles by: whatever the last of them wrote comes into force, without a further change that would bring it.
#[tokio::test]
async fn no_change_is_lost_among_many_at_once() {
    const WRITERS: u8 = 4;
    let dir = tempfile::tempdir().unwrap();
    let staging = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
    let mut configs = started(dir.path()).await;
    for round in 0..40u8 {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (dir, staging) = (dir.path().to_owned(), staging.path().join(format!("{writer}.yaml")));
                std::thread::spawn(move || {
                    for step in 0..=3u8 {
                        let pause = u64::from(round % 10) * u64::from(writer + 1) * u64::from(step);
                        std::thread::sleep(Duration::from_millis(pause));
                        let name = format!("{}.yaml", writer.wrapping_add(step % 2 * WRITERS));
                        fs::write(&staging, pod(&format!("p{writer}"), &format!("10.{round}.{step}.{writer}")))
                            .unwrap();
                        fs::rename(&staging, dir.join(&name)).unwrap();
                        let other = format!("{}.yaml", writer.wrapping_add((step + 1) % 2 * WRITERS));
                        let _ = fs::remove_file(dir.join(other));
                    }
                })
            })
            .collect();
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| thread.join().unwrap()))
            .await
            .unwrap();
        let last: Vec<_> = (0..WRITERS).map(|writer| format!("p{writer}=10.{round}.3.{writer}")).collect();
        let last: Vec<_> = last.iter().map(String::as_str).collect();
        shows(&mut configs, &last, &[]).await;
    }
}

#[tokio::test]
async fn a_missing_directory_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = watch(missing.clone(), Options::default()).await.unwrap_err();
    assert!(matches!(&error, DirectoryError::Read { path, .. } if *path == missing), "{error}");
    assert!(error.to_string().contains("missing"), "{error}");
}

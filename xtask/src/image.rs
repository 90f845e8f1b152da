//! `cargo xtask image`: images as docker archives, without a container runtime. The same programs give the same archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::Profile;
use crate::{repo, step};

/// What ldd says of a program that needs no libraries.
const STATIC: [&str; 2] = ["statically linked", "not a dynamic executable"];

/// What is in an image.
struct Image {
    name: &'static str,
    /// The first is what it runs.
    programs: &'static [&'static str],
}

const IMAGES: [Image; 5] = [
    Image { name: "mesh-node", programs: &["mesh-node", "mesh-ctl"] },
    Image { name: "mesh-control", programs: &["mesh-control"] },
    Image { name: "mesh-waypoint", programs: &["mesh-waypoint", "mesh-ctl"] },
    Image { name: "mesh-traffic", programs: &["mesh-traffic"] },
    Image { name: "mesh-shop", programs: &["mesh-shop", "mesh-traffic"] },
];

/// Builds every image from the programs of a profile, which are there; gives the archives.
pub(crate) fn build_all(profile: Profile) -> Result<Vec<PathBuf>> {
    IMAGES
        .iter()
        .map(|image| {
            let programs: Vec<PathBuf> = image.programs.iter().map(|name| profile.folder().join(name)).collect();
            let archive = repo::target().join("images").join(format!("{}.tar", image.name));
            build(&format!("mesh.dev/{}:{}", image.name, env!("CARGO_PKG_VERSION")), &programs, &archive)?;
            Ok(archive)
        })
        .collect()
}

/// What is written into an image.
pub(crate) struct Contents<'a> {
    /// With the shared libraries that they need; the first is what it runs.
    pub(crate) programs: &'a [PathBuf],
    /// Files, each with its place under the root.
    pub(crate) files: &'a [(PathBuf, &'a str)],
}

/// Writes an image of `programs` and nothing else.
pub(crate) fn build(reference: &str, programs: &[PathBuf], archive: &Path) -> Result<()> {
    write(&[reference.to_owned()], &Contents { programs, files: &[] }, archive)
}

/// Writes an image that has several names.
pub(crate) fn write(references: &[String], Contents { programs, files }: &Contents<'_>, archive: &Path) -> Result<()> {
    let work = archive.with_extension("work");
    let root = work.join("root");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    fs::create_dir_all(root.join("tmp")).with_context(|| format!("making {}", root.display()))?;
    let mut entrypoint = String::new();
    for (file, place) in *files {
        copy(file, &root.join(place))?;
    }
    for program in *programs {
        let name = program.file_name().context("a program's file has a name")?.to_string_lossy();
        let place = format!("usr/bin/{name}");
        copy(program, &root.join(&place))?;
        if entrypoint.is_empty() {
            entrypoint = format!("/{place}");
        }
        for library in libraries(program)? {
            let place = library.strip_prefix("/").context("ldd gives absolute paths")?;
            copy(&library, &root.join(place))?;
        }
    }
    let layer = work.join("layer.tar");
    tar(&root, &["."], &layer)?;
    let digest = output(Command::new("sha256sum").arg(&layer))?;
    let digest = digest.split_whitespace().next().context("sha256sum printed nothing")?;
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{"Entrypoint":["{entrypoint}"],"Env":["PATH=/usr/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    fs::write(work.join("config.json"), config).context("writing the image's configuration")?;
    let names = references.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(",");
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":[{names}],"Layers":["layer.tar"]}}]"#);
    fs::write(work.join("manifest.json"), manifest).context("writing the image's manifest")?;
    tar(&work, &["manifest.json", "config.json", "layer.tar"], archive)?;
    fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copying {}", from.display()))
}

/// The shared libraries of a program, and the loader; none of a static one. One that is not here would be missing in the image.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("starting ldd")?;
    let (text, error) = (String::from_utf8_lossy(&listed.stdout), String::from_utf8_lossy(&listed.stderr));
    let is_static = [&text, &error].iter().any(|said| STATIC.iter().any(|words| said.contains(words)));
    let missing = text.lines().find(|line| line.contains("not found"));
    if let Some(library) = missing.and_then(|line| line.split_whitespace().next()) {
        bail!("{} needs {library}, which is not on this machine: install it, or build without it", program.display());
    }
    anyhow::ensure!(listed.status.success() || is_static, "ldd {}: {}", program.display(), error.trim());
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// An archive that is the same whenever and by whomever it is made.
fn tar(directory: &Path, members: &[&str], archive: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args([
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=ustar",
    ]);
    command.args(["--mode=u+rwX,go+rX,go-w"]).arg("--directory").arg(directory).arg("--file").arg(archive);
    output(command.args(members)).map(drop)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting `{}`", step::shown(command)))?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`{}` ended with {}: {error}", step::shown(command), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles a program, or a library, from one line.
    fn compiled(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let (file, program) = (directory.join(format!("{name}.rs")), directory.join(name));
        fs::write(&file, source).unwrap();
        let mut command = Command::new("rustc");
        command
            .args(["--edition=2024", "--crate-name=made", "-L"])
            .arg(directory)
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(&file);
        output(&mut command).unwrap();
        program
    }

    /// The root of an image of these programs.
    fn root(directory: &Path, programs: &[PathBuf]) -> PathBuf {
        let (archive, root) = (directory.join("image.tar"), directory.join("root"));
        build("test", programs, &archive).unwrap();
        fs::create_dir(&root).unwrap();
        output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(directory)).unwrap();
        output(Command::new("tar").arg("-xf").arg(directory.join("layer.tar")).arg("-C").arg(&root)).unwrap();
        root
    }

    #[test]
    fn programs_run_with_what_is_in_their_image_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let source = |says: &str| format!("fn main() {{ println!({says:?}) }}");
        let dynamic = compiled(directory.path(), "dynamic", &source("by libraries"), &[]);
        let alone = compiled(directory.path(), "alone", &source("by itself"), &["-Ctarget-feature=+crt-static"]);
        assert!(!libraries(&dynamic).unwrap().is_empty() && libraries(&alone).unwrap().is_empty());
        let root = root(directory.path(), &[dynamic, alone]);
        for (program, says) in [("dynamic", "by libraries"), ("alone", "by itself")] {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--root"]).arg(&root).arg(format!("/usr/bin/{program}"));
            assert_eq!(output(&mut command).unwrap().trim(), says);
        }
    }

    #[test]
    fn a_program_whose_library_is_not_here_makes_no_image() {
        let directory = tempfile::tempdir().unwrap();
        let library = "#[unsafe(no_mangle)] pub extern \"C\" fn here() {}";
        compiled(directory.path(), "libelsewhere.so", library, &["--crate-type=cdylib"]);
        let source = "#[link(name = \"elsewhere\")] unsafe extern \"C\" { safe fn here(); } fn main() { here() }";
        let program = compiled(directory.path(), "program", source, &[]);
        let error = build("test", &[program], &directory.path().join("image.tar")).unwrap_err().to_string();
        assert!(error.contains("libelsewhere.so"), "{error}");
    }
}

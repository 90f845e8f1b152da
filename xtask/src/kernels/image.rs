//! Debian's kernels: fetched by apt into folders of our own, unpacked, with their modules in loading order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{repo, step};

/// A kernel series that Debian keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    /// "6.1".
    pub(crate) name: &'static str,
    /// Debian's package that always depends on the newest of the series.
    meta_package: &'static str,
}

/// Both are in Debian 12's security suite, whatever Debian this machine runs.
pub(crate) const SERIES: [Series; 2] = [
    Series { name: "6.1", meta_package: "linux-image-cloud-amd64" },
    Series { name: "6.12", meta_package: "linux-image-6.12-cloud-amd64" },
];

const SUITE: &str = "bookworm-security";
const MIRROR: &str = "http://deb.debian.org/debian-security";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel.
pub(crate) struct Image {
    /// The bootable file.
    pub(crate) vmlinuz: PathBuf,
    /// The package's content.
    folder: PathBuf,
}

/// The newest kernel of the series, from `target/kernels` where it is there already.
pub(crate) fn fetch(series: Series) -> Result<Image> {
    let folder = repo::target().join("kernels").join(series.name);
    if let Some(vmlinuz) = vmlinuz_in(&folder) {
        return Ok(Image { vmlinuz, folder });
    }
    let apt = Apt::new(&repo::target().join("kernels/apt"))?;
    apt.update()?;
    let package = apt.newest(series)?;
    let draft = folder.with_extension("draft");
    remove(&draft)?;
    std::fs::create_dir_all(&draft).with_context(|| format!("cannot make {}", draft.display()))?;
    apt.download(&package, &draft)?;
    let unpacked = draft.join("root");
    let archive = std::fs::read_dir(&draft)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"));
    let archive = archive.with_context(|| format!("apt-get download left no .deb in {}", draft.display()))?;
    step::run(&format!("unpacking {package}"), Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    remove(&folder)?;
    std::fs::rename(&unpacked, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    remove(&draft)?;
    let vmlinuz = vmlinuz_in(&folder).with_context(|| format!("{package} has no boot/vmlinuz-*"))?;
    Ok(Image { vmlinuz, folder })
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

fn vmlinuz_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder.join("boot")).ok()?;
    entries.filter_map(Result::ok).map(|e| e.path()).find(|path| path.to_string_lossy().contains("/vmlinuz-"))
}

/// apt with sources, lists and cache of its own: this machine's are not touched.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        ensure!(Path::new(KEYRING).exists(), "{KEYRING} is missing: other kernels come from Debian, and need its keys");
        for part in ["lists/partial", "cache/archives/partial", "none"] {
            let part = folder.join(part);
            std::fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let sources = folder.join("sources.list");
        std::fs::write(&sources, format!("deb [arch=amd64 signed-by={KEYRING}] {MIRROR} {SUITE} main\n"))
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let at = |part: &str| folder.join(part).display().to_string();
        let options = [
            format!("Dir::Etc::sourcelist={}", sources.display()),
            format!("Dir::Etc::sourceparts={}", at("none")),
            format!("Dir::Etc::preferencesparts={}", at("none")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Acquire::Languages=none".to_owned(),
            // The download folder need not be open to apt's own user.
            "APT::Sandbox::User=root".to_owned(),
        ];
        Ok(Self { options: options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect() })
    }

    fn update(&self) -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(&self.options).args(["--quiet", "update"]);
        step::run("list of Debian's kernels", &mut command).map(drop)
    }

    fn newest(&self, series: Series) -> Result<String> {
        let mut command = Command::new("apt-cache");
        let output =
            command.args(&self.options).args(["depends", series.meta_package]).output().context("apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        dependency(&text, series.name)
            .with_context(|| format!("{MIRROR} {SUITE} offers no kernel {}: see SERIES in this file", series.name))
    }

    fn download(&self, package: &str, folder: &Path) -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(&self.options).args(["--quiet", "download", package]).current_dir(folder);
        step::run(&format!("downloading {package}"), &mut command).map(drop)
    }
}

/// The kernel package that a meta package stands for, of this series and no other.
fn dependency(depends: &str, series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.");
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(&prefix))
        .map(str::to_owned)
}

impl Image {
    /// Writes the modules `wanted`, and what they need, into `folder` uncompressed; returns the file names in loading order.
    pub(crate) fn modules(&self, wanted: &[&str], folder: &Path) -> Result<Vec<String>> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let files = self.module_files()?;
        let mut loaded = BTreeSet::new();
        let mut order = Vec::new();
        for name in wanted {
            self.load(name, &files, folder, &mut loaded, &mut order)?;
        }
        Ok(order)
    }

    fn module_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.join("lib/modules")];
        if !folders[0].exists() {
            folders = vec![self.folder.join("usr/lib/modules")];
        }
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path);
                }
            }
        }
        Ok(files)
    }

    fn load(
        &self,
        name: &str,
        files: &[PathBuf],
        folder: &Path,
        loaded: &mut BTreeSet<String>,
        order: &mut Vec<String>,
    ) -> Result<()> {
        if !loaded.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = files.iter().find(|file| module_name(file).as_deref() == Some(name)) else {
            return self.built_in(name, files);
        };
        let content = content(file)?;
        for dependency in depends(&content) {
            self.load(&dependency, files, folder, loaded, order)?;
        }
        let target = format!("{name}.ko");
        std::fs::write(folder.join(&target), content).with_context(|| format!("cannot write {target}"))?;
        order.push(target);
        Ok(())
    }

    fn built_in(&self, name: &str, files: &[PathBuf]) -> Result<()> {
        let list = files
            .iter()
            .find(|file| file.ends_with("modules.builtin"))
            .context("no modules.builtin in the kernel's package")?;
        let list = std::fs::read_to_string(list)?;
        let built_in = list.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name));
        ensure!(built_in, "{} has no module {name}", self.vmlinuz.display());
        Ok(())
    }
}

/// "nf_tables" for ".../nf-tables.ko.xz".
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    let stem = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

fn content(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output().context("cannot start xz")?;
    if !output.status.success() {
        bail!("cannot decompress {}", file.display());
    }
    Ok(output.stdout)
}

/// The modules that a module's own description says it needs.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &module[start + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    let names = String::from_utf8_lossy(&value[..end]).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_of_another_series_is_refused() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(dependency(depends, "6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency(depends, "6.12"), None);
    }

    #[test]
    fn a_modules_needs_are_read_from_it() {
        assert_eq!(depends(b"x\0license=GPL\0depends=nf-nat,nf_tables\0name=a\0"), ["nf_nat", "nf_tables"]);
        assert_eq!(depends(b"x\0depends=\0name=a\0"), [] as [&str; 0]);
        assert_eq!(module_name(Path::new("a/nf-tables.ko.xz")).as_deref(), Some("nf_tables"));
        assert_eq!(module_name(Path::new("a/modules.dep")), None);
    }
}

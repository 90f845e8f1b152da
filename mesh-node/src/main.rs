//! mesh-node
mod bpf;
mod netns;
mod sockets;
fn main() {
    let root = bpf::precheck(None, std::path::Path::new("/tmp/w/bpffs"), std::path::Path::new("/proc")).unwrap();
    let d = bpf::Datapath::load(&bpf::LoadOptions{bpf_dir: "/tmp/w/bpffs".as_ref(), cgroup_root: &root, proc: "/proc".as_ref(), log:false});
    match d { Ok(_) => println!("ok"), Err(e) => println!("{e}") }
}

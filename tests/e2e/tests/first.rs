//! first light
use mesh_e2e::Mesh;
use mesh_lab::*;

#[test]
fn first() -> anyhow::Result<()> {
    let mesh = Mesh::start()?;
    let lab = &mesh.lab;
    let server = lab.deploy(PodSpec::new("app","notification").on("node-b").service_account("notification").label("app","notification").port("tcp",7070).command(["mesh-shop","notification","--listen","[::]:7070"]))?;
    let client = lab.deploy(PodSpec::new("app","client").on("node-a").service_account("client"))?;
    mesh.wait_enrolled(1, 1)?;
    let out = client.exec(&["sh","-c", &format!("printf 'NOTIFY 12 hello\\n' | timeout 5 nc -N {} 7070", server.ipv4())])?;
    println!("{out}");
    println!("server {}", server.log());
    println!("{}", mesh.a.logs()); println!("{}", mesh.b.logs());
    Ok(())
}

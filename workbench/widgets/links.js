/**
 * Links to notebooks: JupyterLab opens them as a tab, Notebook as a page.
 */

/** What Jupyter says to its pages of itself. */
function jupyter() {
  return JSON.parse(document.getElementById("jupyter-config-data")?.textContent || "{}");
}

/** A file's path below the folder that Jupyter serves, or null where it does not serve it. */
function servedPath(path, home) {
  const root = (jupyter().serverRoot ?? "").replace(/^~(?=\/|$)/, home).replace(/\/+$/, "");
  if (!root || !path.startsWith(`${root}/`)) return null;
  const rest = path.slice(root.length + 1);
  return rest.split("/").some((part) => part.startsWith(".")) ? null : rest; // it hides those
}

/** The attributes of a link that opens a notebook, or null where Jupyter does not serve it. */
function opening(path, home) {
  const served = servedPath(path, home);
  if (served === null) return null;
  const { baseUrl = "/", appName } = jupyter();
  const place = appName === "Jupyter Notebook" ? "notebooks/" : "lab/tree/";
  return {
    href: `${baseUrl}${place}${served.split("/").map(encodeURIComponent).join("/")}`,
    "data-commandlinker-command": "docmanager:open",
    "data-commandlinker-args": JSON.stringify({ path: served }),
  };
}

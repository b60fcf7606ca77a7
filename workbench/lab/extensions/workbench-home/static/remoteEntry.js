/**
 * JupyterLab's tile "Home": it opens the start notebook, whose cell runs wherever it is opened.
 *
 * Written by hand as the container that JupyterLab's module federation expects, without a build:
 * `init` is given the modules that all extensions share, `get` returns the one that we are.
 */
(() => {
  const NAME = "workbench-home";
  const START = "workbench.ipynb";
  const OPEN = "workbench:home";
  const STATIC = new URL(".", document.currentScript.src);
  const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16"><path
    class="jp-icon3" fill="#616161" d="M12 3 2 12h3v8h6v-6h2v6h6v-8h3z"/></svg>`;

  let shared = {};

  /** A module that JupyterLab shares, in whichever version it has. */
  async function load(name) {
    const [version] = Object.values(shared[name] ?? {});
    if (!version) throw new Error(`${NAME}: this JupyterLab does not share ${name}`);
    return (await version.get())();
  }

  /** The start notebook as it is written where there is none. */
  async function template() {
    return (await fetch(new URL(START, STATIC))).json();
  }

  /** Open the start notebook, written if it is not there. */
  async function open({ commands, serviceManager: { contents } }) {
    await contents.get(START, { content: false }).catch(async (error) => {
      if (error?.response?.status !== 404) throw error;
      await contents.save(START, { type: "notebook", format: "json", content: await template() });
    });
    return commands.execute("docmanager:open", { path: START, factory: "Notebook" });
  }

  /** Run the cell of a start notebook that was opened; only the very one that we have written. */
  async function show({ context, sessionContext, revealed, content }, { runCells }) {
    if (context.path.split("/").at(-1) !== START) return;
    await Promise.all([context.ready, sessionContext.ready, revealed]);
    const source = [(await template()).cells[0].source].flat().join("");
    const cell = content.widgets.find(({ model }) => model.sharedModel.getSource() === source);
    if (cell) await runCells(content, [cell], sessionContext);
  }

  /** The plugin, given the tokens of what it needs. */
  const plugin = ({ ILauncher }, { INotebookTracker, NotebookActions }, { LabIcon }) => ({
    id: `${NAME}:plugin`,
    description: "A tile in the launcher that opens the workbench's start notebook.",
    autoStart: true,
    requires: [INotebookTracker],
    optional: [ILauncher],
    activate(app, notebooks, launcher) {
      app.commands.addCommand(OPEN, {
        label: "Home",
        caption: "The path, recent runs, models and services of the workbench",
        icon: new LabIcon({ name: `${NAME}:home`, svgstr: ICON }),
        execute: () => open(app),
      });
      launcher?.add({ command: OPEN, category: "Workbench", rank: 0 });
      notebooks.widgetAdded.connect((_, panel) => void show(panel, NotebookActions));
    },
  });

  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB[NAME] = {
    init(scope) {
      shared = scope;
    },
    async get() {
      const needed = ["launcher", "notebook", "ui-components"];
      const modules = await Promise.all(needed.map((name) => load(`@jupyterlab/${name}`)));
      return () => ({ __esModule: true, default: plugin(...modules) });
    },
  };
})();

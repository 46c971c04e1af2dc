# The door: everything is in workflow/, settings in config.yaml. `snakemake --cores 8 --resources gpu=1`
workflow.include("workflow/Snakefile", overwrite_default_target=True)
